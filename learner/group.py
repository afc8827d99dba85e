"""The learner as the driver sees it: one object with the verbs update, publish, export, save.

What the whole minibatch decides (`learner.work`) is decided here, once; the ranks only compute gradients.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.rank import LearnerActor
from learner.update import merge
from learner.work import GroupWork, RunShape, batch_advantages, draw_anchors, draw_steps, spread
from rc_grpo.config import EditorConfig, LearnerConfig, ObjectiveConfig, actor_options
from rc_grpo.messages import PolicyVersion, ScoredGroup
from rc_grpo.pool import within


@dataclass(frozen=True, eq=False)
class UpdateReport:
    """What an update did.

    Attributes:
        version: the policy that the update started from.
        advantages: ``[P, G]``, in the order of the batch.
        skipped: why a group was left out, or None, in the order of the batch.
        metrics: statistics by name; empty of update figures when every group was skipped and no step was taken.
    """

    version: PolicyVersion
    advantages: NDArray[np.float64]
    skipped: tuple[str | None, ...]
    metrics: dict[str, float]


class LearnerGroup:
    """DeepSpeed ranks in a placement group of their own.

    Args:
        editor: which editor is trained.
        learner: ranks and optimiser.
        objective: what is maximised.
        run: the rest of the run, as far as it matters here.
        namespace: Ray namespace in which the ranks are named.
    """

    def __init__(
        self, editor: EditorConfig, learner: LearnerConfig, objective: ObjectiveConfig, run: RunShape, namespace: str
    ) -> None:
        self._editor = editor
        self._learner = learner
        self._objective = objective
        self._run = run
        self._namespace = namespace
        self._ranks: list[Any] = []
        self._placement: PlacementGroup | None = None
        self._version: PolicyVersion | None = None

    @property
    def version(self) -> PolicyVersion:
        """The version last published."""
        if self._version is None:
            raise RuntimeError("the learner has published nothing yet")
        return self._version

    async def open(self) -> None:
        """Place and start the ranks, and form the process group."""
        learner, deadline = self._learner, self._learner.start_deadline_s
        demand = learner.resources.as_ray()
        self._placement = placement_group([demand] * learner.ranks, strategy="PACK")
        await within(deadline, self._placement.ready(), "the learner", f"{learner.ranks} x {demand} to be free")
        strategy = PlacementGroupSchedulingStrategy(self._placement)
        self._ranks = [
            LearnerActor.options(
                scheduling_strategy=strategy,
                **actor_options(self._namespace, f"learner-{rank}", learner.threads, learner.resources),
            ).remote(rank, self._editor, learner, self._objective, self._run)
            for rank in range(learner.ranks)
        ]
        address = await within(deadline, self._ranks[0].rendezvous.remote(), "the learner", "learner-0 to start")
        joining = self._all("join", learner.ranks, address)
        await within(deadline, joining, "the learner", "all ranks to join the process group")

    def close(self) -> None:
        """Stop the ranks and give their resources back."""
        for rank in self._ranks:
            ray.kill(rank)
        self._ranks = []
        if self._placement is not None:
            remove_placement_group(self._placement)
            self._placement = None

    async def publish(self) -> tuple[PolicyVersion, Any]:
        """Return the current policy version and a reference to its weights."""
        published = [rank.publish.options(num_returns=2).remote() for rank in self._ranks]
        versions = await self._call(asyncio.gather(*(version for version, _ in published)), "the ranks to publish")
        self._version = versions[0]
        return self.version, published[0][1]

    async def update(self, batch: Sequence[ScoredGroup]) -> UpdateReport:
        """Learn from a batch: rewards, advantages, anchors, one or more optimiser steps on every rank.

        When every group is skipped no rank takes a step, and the version stays what it is.
        """
        advantages, skipped = batch_advantages(
            [scored.scores for scored in batch], self._run.judge_weights, self._objective
        )
        metrics = {f"groups_skipped/{reason}": float(count) for reason, count in Counter(filter(None, skipped)).items()}
        kept = [index for index, reason in enumerate(skipped) if reason is None]
        if kept:
            work = [self._work(batch[index], advantages[index].numpy()) for index in kept]
            metrics |= await self._step(work)
        return UpdateReport(self.version, advantages.numpy(), skipped, metrics)

    async def export(self, folder: Path) -> str:
        """Write the policy for diffusers and return its digest."""
        digests = await self._call(self._all("export", folder), f"the export to {folder}")
        return str(digests[0])

    async def save(self, folder: Path, tag: str) -> None:
        """Write a checkpoint of all ranks."""
        await self._call(self._all("save", folder, tag), f"the checkpoint {tag}")

    async def load(self, folder: Path, tag: str) -> None:
        """Restore a checkpoint of all ranks."""
        await self._call(self._all("load", folder, tag), f"the checkpoint {tag} to be read")

    def _work(self, scored: ScoredGroup, advantages: NDArray[np.float64]) -> GroupWork:
        config, version, task_id = self._objective, self.version, scored.task.task_id
        return GroupWork(
            group=scored.group,
            conditions=scored.conditions,
            advantages=advantages,
            anchors=draw_anchors(self._run, version.number, task_id, len(advantages), config.anchors),
            steps=draw_steps(self._run, version.number, task_id, config.trained_steps),
            on_policy=scored.receipt.policy == version,
        )

    async def _step(self, work: list[GroupWork]) -> dict[str, float]:
        shares = spread(work, len(self._ranks))
        calls = [rank.update.remote(share, len(work)) for rank, share in zip(self._ranks, shares, strict=True)]
        results = await self._call(asyncio.gather(*calls), f"the update from version {self.version}")
        return {f"update/{name}": value for name, value in merge(results).items()}

    def _all(self, method: str, *arguments: Any) -> "asyncio.Future[list[Any]]":
        return asyncio.gather(*(getattr(rank, method).remote(*arguments) for rank in self._ranks))

    async def _call(self, awaitable: Any, what: str) -> Any:
        return await within(self._learner.call_deadline_s, awaitable, "the learner", what)
