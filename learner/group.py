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
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from learner.errors import LearnerLostError
from learner.rank import LearnerActor
from learner.statistics import merge
from learner.updates import UPDATES
from learner.work import GroupWork, RunShape, batch_advantages, draw_anchors, draw_steps, idle_share, spread
from rc_grpo.config import EditorConfig, LearnerConfig, ObjectiveConfig, actor_options
from rc_grpo.messages import PolicyVersion, ScoredGroup
from rc_grpo.storable import last_line
from rc_grpo.waiting import DeadlineExceededError, Waits

_POLL_SECONDS = 0.2
_PING_SECONDS = 5.0


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
        self.waits = Waits()
        self._ranks: list[Any] = []
        self._placement: PlacementGroup | None = None
        self._version: PolicyVersion | None = None
        self.weights: Any = None
        """Reference to the safetensors bytes of the version last published."""

    @property
    def is_open(self) -> bool:
        """The ranks are there."""
        return bool(self._ranks)

    @property
    def has_published(self) -> bool:
        """There is a version."""
        return self._version is not None

    @property
    def version(self) -> PolicyVersion:
        """The version last published."""
        if self._version is None:
            raise RuntimeError("the learner has published nothing yet")
        return self._version

    async def open(self) -> None:
        """Place and start the ranks, and form the process group.

        Raises:
            LearnerLostError: a rank did not come up, or not in time.
        """
        learner = self._learner
        demand = learner.resources.as_ray()
        self._placement = placement_group([demand] * learner.ranks, strategy="PACK")
        await self._start(self._placement.ready(), f"{learner.ranks} x {demand} to be free")
        strategy = PlacementGroupSchedulingStrategy(self._placement)
        names = [f"learner-{rank}" for rank in range(learner.ranks)]
        await self._start(self._freed(names), "the names of the last ranks to be free")
        self._ranks = [
            LearnerActor.options(
                scheduling_strategy=strategy,
                **actor_options(self._namespace, name, learner.threads, learner.resources),
            ).remote(rank, self._editor, learner, self._objective, self._run)
            for rank, name in enumerate(names)
        ]
        address = await self._start(self._ranks[0].rendezvous.remote(), "learner-0 to start")
        await self._start(self._all("join", learner.ranks, address), "all ranks to join the process group")

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
        self._version, self.weights = versions[0], published[0][1]
        return self.version, self.weights

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

    async def export(self, folder: Path, *, average: bool = True) -> str:
        """Write the policy, or its moving average where one is kept, for diffusers; return the digest."""
        calls = asyncio.gather(*(rank.export.remote(folder, average=average) for rank in self._ranks))
        digests = await self._call(calls, f"the export to {folder}")
        return str(digests[0])

    async def save(self, folder: Path, tag: str) -> None:
        """Write a checkpoint of all ranks into a folder that is there.

        Raises:
            UnsharedFolderError: a rank does not see it.
        """
        await self._call(self._all("require", folder / tag), f"all ranks to see {folder / tag}")
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
            steps=draw_steps(
                self._run,
                version.number,
                task_id,
                config.trained_steps,
                self._run.window(scored.receipt.policy.number),
            ),
            on_policy=scored.receipt.policy == version,
        )

    async def _step(self, work: list[GroupWork]) -> dict[str, float]:
        shares = spread(
            work,
            len(self._ranks),
            by_chain=UPDATES[self._objective.algorithm].by_chain,
            turn=self.version.number,
            sharded=self._learner.shards_weights,
        )
        name = f"update from version {self.version.number}"
        calls = [
            rank.update.options(name=name).remote(share, len(work))
            for rank, share in zip(self._ranks, shares, strict=True)
        ]
        results = await self._call(asyncio.gather(*calls), f"the {name}")
        figures = merge(results) | {"rank_idle_share": idle_share(shares)}
        return {f"update/{name}": value for name, value in figures.items()}

    def _all(self, method: str, *arguments: Any) -> "asyncio.Future[list[Any]]":
        return asyncio.gather(*(getattr(rank, method).remote(*arguments) for rank in self._ranks))

    async def _start(self, awaitable: Any, what: str) -> Any:
        return await self._within(self._learner.start_deadline_s, awaitable, what)

    async def _call(self, awaitable: Any, what: str) -> Any:
        return await self._within(self._learner.call_deadline_s, awaitable, what)

    async def _within(self, deadline: float, awaitable: Any, what: str) -> Any:
        try:
            return await self.waits.within(deadline, awaitable, "the learner", what)
        except (RayActorError, ObjectLostError, DeadlineExceededError) as error:
            raise LearnerLostError(f"the learner was lost while it waited for {what}: {last_line(error)}") from error
        except RayTaskError as error:
            # When a rank dies, another's collective may fail before Ray has noticed.
            if lost := await self._dead():
                raise LearnerLostError(f"{lost} was lost while the learner waited for {what}") from error
            raise

    async def _dead(self) -> str:
        """Return the names of the ranks that are known to be gone a moment from now."""
        pings = {
            f"learner-{rank}": asyncio.ensure_future(actor.describe.remote()) for rank, actor in enumerate(self._ranks)
        }
        await asyncio.wait(pings.values(), timeout=_PING_SECONDS)
        dead = [name for name, ping in pings.items() if ping.done() and isinstance(ping.exception(), RayActorError)]
        for ping in pings.values():
            ping.cancel()
        return ", ".join(dead)

    async def _freed(self, names: Sequence[str]) -> None:
        """Return when no actor holds the names; Ray frees a killed one's a moment later."""
        for name in names:
            while True:
                try:
                    ray.get_actor(name, self._namespace)
                except ValueError:
                    break
                await asyncio.sleep(_POLL_SECONDS)
