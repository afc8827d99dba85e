"""The rollout actor: an editor that knows which policy version it holds, and works only while it can prove it."""

import os
import time
from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from rc_grpo.config import EditorConfig, RolloutConfig
from rc_grpo.editor import lora
from rc_grpo.editor.loading import load_exploring_editor, load_rollout_editor
from rc_grpo.messages import (
    Conditions,
    EditTask,
    PolicyVersion,
    RolloutReceipt,
    RolloutSeeds,
    VersionMismatchError,
    VersionProof,
)
from rc_grpo.process import hand_back, prepare_process
from rollout_workers.rollout import (
    PreparedTask,
    diversity,
    explore,
    finished,
    image_digests,
    prepare,
    roll_out,
)

CACHE_BYTES = 2**30
"""Of prepared tasks a worker keeps: some 100 tasks of the paper's editor at 512 pixels, ten thousand pocket tasks."""


class RolloutWorker:
    """One editor on one device; `RolloutActor` is it as a Ray actor."""

    def __init__(self, name: str, editor: EditorConfig, rollout: RolloutConfig, seed: int) -> None:
        prepare_process(rollout.threads)
        self.name = name
        self._config = rollout
        self._editor = load_rollout_editor(editor, rollout, seed)
        self._explorer = load_exploring_editor(self._editor, editor, rollout, seed)
        self._policy: PolicyVersion | None = None
        self._prepared: OrderedDict[str, PreparedTask] = OrderedDict()
        self._prepared_bytes = 0

    def __repr__(self) -> str:
        return self.name

    def describe(self) -> dict[str, Any]:
        """Return where this worker is and what it holds."""
        return {
            "name": self.name,
            "pid": os.getpid(),
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else None,
            "cores": os.cpu_count() or 1,
            "device": str(self._editor.device),
            "policy": None if self._policy is None else str(self._policy),
        }

    def untrained(self) -> tuple[PolicyVersion, NDArray[np.uint8]]:
        """Return version 0 and its weights, as every worker and rank of the run's seed begins with.

        Raises:
            VersionMismatchError: this worker holds another version by now.
        """
        if self._policy is not None:
            raise VersionMismatchError(f"{self.name} holds {self._policy}, not the untrained policy")
        return lora.pack(0, lora.copied(self._editor.policy.weights()))

    def adopt(self, version: PolicyVersion, weights: NDArray[np.uint8]) -> VersionProof:
        """Take a new policy version and prove it; until that succeeded the worker refuses rollouts."""
        self._policy = None
        proof = self._editor.adopt(version, weights, worker=self.name)
        if self._explorer is not self._editor:
            self._explorer.adopt(version, weights, worker=self.name)
        self._policy = version
        return proof

    def rollout(
        self,
        task: EditTask,
        seeds: RolloutSeeds,
        version: PolicyVersion,
        steps: int | None,
        guidance: float | None,
        keep_states: bool,
    ) -> tuple[RolloutReceipt, pa.RecordBatch, Conditions]:
        """Roll one group out under ``version``, which must be the one this worker has proved.

        Returns:
            The receipt for the driver, the group as a record batch, the conditions it was made under.
        """
        self._require(version, task)
        started = time.perf_counter()
        prepared = self._prepare(task)
        encoded = finished(self._editor.device)
        group = roll_out(
            self._editor,
            task.task_id,
            prepared,
            seeds,
            version,
            self._config,
            steps=steps,
            guidance=guidance,
            keep_states=keep_states,
            worker=self.name,
        )
        rolled_out = time.perf_counter()
        batch = group.to_arrow()
        seconds = {"encode": encoded - started} | dict(group.seconds) | {"ship": time.perf_counter() - rolled_out}
        drift, spread = tuple(group.background_drift.tolist()), diversity(group.images, self._editor.device)
        hand_back(self._config.resources, self._editor.device)
        return RolloutReceipt(task.task_id, version, self.name, drift, spread, seconds), batch, prepared.conditions

    def explore(
        self, task: EditTask, seeds: RolloutSeeds, version: PolicyVersion
    ) -> tuple[RolloutReceipt, pa.RecordBatch]:
        """Make a pool for a group to be chosen from, under ``version``, which must be the one this worker has proved.

        Returns:
            The receipt for the driver, with the images' digests, and the pool as a record batch.
        """
        self._require(version, task)
        pool = explore(
            self._explorer, task.task_id, self._prepare(task), seeds, version, self._config, worker=self.name
        )
        drift, spread = tuple(pool.background_drift.tolist()), diversity(pool.images, self._editor.device)
        digests = image_digests(pool.images)
        receipt = RolloutReceipt(task.task_id, version, self.name, drift, spread, pool.seconds, digests)
        hand_back(self._config.resources, self._editor.device)
        return receipt, pool.to_arrow()

    def _require(self, version: PolicyVersion, task: EditTask) -> None:
        if self._policy != version:
            raise VersionMismatchError(
                f"{self.name} holds {self._policy}, the rollout of {task.task_id} is for {version}"
            )

    def _prepare(self, task: EditTask) -> PreparedTask:
        if task.task_id in self._prepared:
            self._prepared.move_to_end(task.task_id)
            return self._prepared[task.task_id]
        prepared = prepare(self._editor, task, self._config)
        self._prepared[task.task_id] = prepared
        self._prepared_bytes += prepared.nbytes
        while self._prepared_bytes > CACHE_BYTES and len(self._prepared) > 1:
            _, oldest = self._prepared.popitem(last=False)
            self._prepared_bytes -= oldest.nbytes
        return prepared


RolloutActor = ray.remote(RolloutWorker)
