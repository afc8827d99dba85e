"""One DeepSpeed rank as a Ray actor."""

import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learner import activations, distributed
from learner.checkpoint import load_engine, save_engine
from learner.errors import NonFiniteError, UnsharedFolderError
from learner.finite import first_non_finite, require_finite
from learner.schedule import follow_plan
from learner.statistics import Figures, Statistics
from learner.updates import UPDATES, GroupUpdate
from learner.work import GroupWork, RunShape
from rc_grpo.config import EditorConfig, LearnerConfig, ObjectiveConfig
from rc_grpo.editor import export, files, lora
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen
from rc_grpo.editor.loading import load_denoiser
from rc_grpo.editor.weights.distance import DistanceFromBase
from rc_grpo.messages import CandidateGroup, PolicyVersion
from rc_grpo.process import hand_back, prepare_process, repeat_exactly

SHOWN_WITHIN_S = 30.0


class LearnerRank:
    """The policy, its optimiser state (or a shard of it), and the update.

    Args:
        rank: of this actor.
        editor: which editor is trained.
        config: optimiser and ranks.
        objective: what is maximised.
        run: the rest of the run, as far as it matters here.
    """

    def __init__(
        self,
        rank: int,
        editor: EditorConfig,
        config: LearnerConfig,
        objective: ObjectiveConfig,
        run: RunShape,
    ) -> None:
        prepare_process(config.threads)
        if config.deterministic:
            repeat_exactly()
        self.rank = rank
        self._config = config
        self._objective = objective
        self._run = run
        self._settings = editor.lora
        self._algorithm = UPDATES[objective.algorithm]
        self._denoiser = load_denoiser(editor, run.seed)
        if config.start_from is not None:
            self._denoiser.policy.load(export.read_lora(editor.lora, config.start_from))
        self._distance = DistanceFromBase(self._denoiser.policy, editor.lora)
        if config.fp8:
            quantise_frozen(self._denoiser.body)
        activations.arrange(
            self._denoiser.body, config.activations, compiled=editor.compile, sharded=config.shards_weights
        )
        self._travels = files.dtype(editor)
        self._past: dict[int, dict[str, Tensor]] = {}
        self._updates = 0
        self._ema: dict[str, Tensor] | None = None

    def __repr__(self) -> str:
        return f"learner-{self.rank}"

    def describe(self) -> dict[str, Any]:
        """Return where this rank is and what it holds."""
        return {"name": repr(self), "pid": os.getpid(), "updates": self._updates}

    def rendezvous(self) -> tuple[str, int]:
        """Return the address that rank 0 will listen on."""
        return distributed.rendezvous()

    def join(self, world_size: int, address: tuple[str, int]) -> None:
        """Join the process group and build the engine; all ranks together."""
        device = self._denoiser.device
        distributed.join(self.rank, world_size, address, device, self._config.call_deadline_s)
        self._world_size = world_size
        body = self._denoiser.body
        self._engine = distributed.make_engine(
            body.transformer, body.blocks, self._trained(), self._config, self._run.updates
        )
        self._denoiser.through(self._engine)
        if self._config.ema_decay is not None:
            self._ema = self._weights()

    def update(self, work: list[GroupWork], groups: int) -> Figures:
        """Take ``steps_per_rollout`` optimiser steps on this rank's groups; all ranks together.

        Args:
            work: as many entries on every rank.
            groups: number of groups of the whole batch, over all ranks.

        Returns:
            Statistics; those of the first step apart from those of later ones.

        Raises:
            NonFiniteError: on every rank, if a loss, a gradient or a weight is NaN or infinite on one.
        """
        started = time.perf_counter()
        figures = Figures()
        seconds: dict[str, float] = defaultdict(float)
        old_paths: list[Tensor | None] = [None] * len(work)
        for step in range(self._config.steps_per_rollout):
            statistics, bad = Statistics(), list[str]()
            for index, item in enumerate(work):
                old_paths[index] = self._accumulate(item, groups, old_paths[index], statistics, seconds, bad)
            with self._timed("step", seconds):
                self._require_finite(bad[0] if bad else self._bad_gradient())
                self._engine.step()
                self._require_finite(self._bad_step())
                self._average()
            prefix = "first_step" if step == 0 else "later_steps"
            figures |= statistics.result().under(prefix)
        self._updates += 1
        distance = self._distance(self._whole())
        hand_back(self._config.resources, self._denoiser.device)
        return figures | Figures(
            means={
                "grad_norm": math.nan if (norm := self._engine.get_global_grad_norm()) is None else float(norm),
                "distance_from_base": distance,
                "learning_rate": float(self._engine.get_lr()[0]),
                "seconds": time.perf_counter() - started,
                **{f"seconds_{part}": value for part, value in seconds.items()},
            }
        )

    def publish(self) -> tuple[PolicyVersion | None, NDArray[np.uint8] | None]:
        """Return the current version and its safetensors bytes from rank 0, nothing from the others; all together.

        Raises:
            NonFiniteError: its weights are not finite.
        """
        weights = lora.rounded(self._weights(), self._travels)
        if self._objective.old_path == "recompute":
            self._past[self._updates] = weights
            while len(self._past) > self._run.max_staleness + 1:
                self._past.pop(min(self._past))
        if self.rank != 0:
            return None, None
        return lora.pack(self._updates, weights)

    def export(self, folder: Path, *, average: bool = True) -> str | None:
        """Write the policy for diffusers from rank 0; all together.

        Args:
            folder: to write to.
            average: write the moving average instead, if one is kept.

        Returns:
            Digest of the weights as they are read back from the file, that of the version if they are one's.
        """
        weights = self._ema if average and self._ema is not None else self._weights()
        if self.rank != 0:
            return None
        # What acted and was measured is what is handed out, to the bit.
        export.save_lora(self._denoiser, lora.rounded(lora.rounded(weights, self._travels), torch.float32), folder)
        return lora.digest(lora.rounded(export.read_lora(self._settings, folder), self._travels))

    def require(self, folder: Path) -> None:
        """Wait for a folder that the driver made; network file systems show it a moment later.

        Raises:
            UnsharedFolderError: it does not come.
        """
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while not folder.is_dir():
            if time.monotonic() > deadline:
                raise UnsharedFolderError(
                    f"{self!r} on {socket.gethostname()} does not see {folder}, which the driver made: put output.root "
                    "on storage that the driver's node and the learner's nodes share, under the same path"
                )
            time.sleep(0.2)

    def save(self, folder: Path, tag: str) -> None:
        """Write engine, optimiser and moving average; all together.

        Raises:
            NonFiniteError: the weights are not finite.
        """
        self._weights()
        save_engine(self._engine, folder, tag, updates=self._updates, ema=self._ema)

    def load(self, folder: Path, tag: str) -> None:
        """Restore what `save` wrote, and go on with the schedule of the updates that are planned now; all together."""
        self._updates, self._ema = load_engine(self._engine, folder, tag)
        follow_plan(self._engine.lr_scheduler)

    def _accumulate(
        self,
        item: GroupWork,
        groups: int,
        old: Tensor | None,
        statistics: Statistics,
        seconds: dict[str, float],
        bad: list[str],
    ) -> Tensor | None:
        with self._timed("fetch", seconds):
            batch, conditions = ray.get([item.group, item.conditions], timeout=self._config.call_deadline_s)
            group = CandidateGroup.from_arrow(batch)
            update = self._algorithm(
                self._denoiser, group, conditions, item, self._objective, self._run, self._config.anchors_per_pass
            )
        with self._timed("anchors", seconds):
            again = self._config.steps_per_rollout > 1
            recompute = partial(self._recomputed, update, group.policy)
            old = update.prepare(old, recompute, on_policy=item.on_policy, again=again)
        scale = item.weight * self._world_size / groups  # DeepSpeed averages over ranks
        with self._timed("backward", seconds):
            of_group = Statistics()
            update.learn(scale, self._engine.backward, of_group)
            bad += [f"the {name} of task {group.task_id}" for name in of_group.not_finite(*update.figures)]
            if item.weight > 0:
                statistics.add(of_group)
        return old

    def _require_finite(self, found: str | None) -> None:
        require_finite(found, self._updates + 1, self._denoiser.device)

    def _bad_gradient(self) -> str | None:
        """Return which gradient of this rank is not finite, as far as it is not sharded yet."""
        own = {name: weight.grad for name, weight in self._denoiser.policy.weights().items()}
        name = first_non_finite({name: gradient for name, gradient in own.items() if gradient is not None})
        return name and f"the gradient of {name}"

    def _bad_step(self) -> str | None:
        """Return what of the step just taken is not finite; DeepSpeed leaves out one whose gradients are not."""
        norm = self._engine.get_global_grad_norm()
        if norm is not None and not math.isfinite(norm):
            return "the gradients' norm"
        name = self._bad_weight()
        return name and f"the weight {name}"

    def _bad_weight(self) -> str | None:
        return first_non_finite(self._whole())

    @contextmanager
    def _timed(self, part: str, seconds: dict[str, float]) -> Iterator[None]:
        """Add how long a part took, its work on the device included."""
        started = time.perf_counter()
        yield
        if self._denoiser.device.type == "cuda":
            torch.cuda.synchronize(self._denoiser.device)
        seconds[part] += time.perf_counter() - started

    def _recomputed(self, update: GroupUpdate, policy: PolicyVersion) -> Tensor:
        if policy.number not in self._past:
            raise ValueError(
                f"version {policy} is no longer kept (kept: {sorted(self._past)}), its path cannot be recomputed"
            )
        held = self._denoiser.policy
        now = lora.copied(held.weights())
        held.load(self._past[policy.number])
        try:
            return update.values()
        finally:
            held.load(now)

    def _weights(self) -> dict[str, Tensor]:
        weights = lora.copied(self._whole())
        # A stop that was asked for during an update is answered by a checkpoint, whatever became of the update.
        if (name := first_non_finite(weights)) is not None:
            raise NonFiniteError(f"the weight {name} of {self!r} is not finite after {self._updates} updates")
        return weights

    def _trained(self) -> list[nn.Parameter]:
        return [weight for weight in self._denoiser.policy.weights().values() if isinstance(weight, nn.Parameter)]

    def _average(self) -> None:
        if self._ema is None or self._config.ema_decay is None:
            return
        for name, value in self._weights().items():
            self._ema[name].lerp_(value, 1.0 - self._config.ema_decay)

    def _whole(self) -> Mapping[str, Tensor]:
        """Return the LoRA's whole tensors, as long as no step is taken."""
        if self._config.shards_weights:
            distributed.gather(self._trained())
        return self._denoiser.policy.weights()


LearnerActor = ray.remote(LearnerRank)
