"""The experience of an earlier run as a source of batches: learning again without rolling out."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

from deploy.batches.lessons import Lessons
from deploy.cluster import beside_the_driver
from deploy.records.folder import RunFolder
from learner.protocol import Learner
from rc_grpo.config import ConfigError
from rc_grpo.data.log.logged import read_groups
from rc_grpo.data.tasks import TaskSet
from rc_grpo.messages import GroupScores, RolloutReceipt, ScoredGroup
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool
from rollout_workers.rollout import diversity

logger = logging.getLogger(__name__)
LoggedGroupParts = tuple[RolloutReceipt, GroupScores, Any, Any]
"""Receipt, scores, and references to the group's record batch and its conditions."""


class Librarian:
    """Reads a run's experience; `LibrarianActor` is it as a Ray actor, so that the driver never holds a trajectory."""

    def __init__(self, run: Path) -> None:
        self._files = RunFolder(run)

    def __repr__(self) -> str:
        return "librarian"

    def update(self, number: int) -> list[LoggedGroupParts]:
        """Return the groups that an update learned from, in its order."""
        parts = []
        for logged in read_groups(self._files.experience_file(number), need="states"):
            group = logged.candidates
            drift = tuple(np.asarray(group.background_drift).tolist())
            receipt = RolloutReceipt(
                group.task_id, group.policy, group.worker, drift, diversity(group.images), group.seconds
            )
            parts.append((receipt, logged.scores, ray.put(group.to_arrow()), ray.put(logged.conditions)))
        return parts


LibrarianActor = ray.remote(Librarian)


class Feed:
    """Yields the batches of an earlier run's updates.

    Args:
        run: its folder.
        tasks: the training data, in which its tasks are found again.
        max_staleness: groups of an older policy than so many versions are left out, and counted.
        deadline_s: an update's experience must have been read by then.
        lessons: counts what the groups are worth.
        stop: once set, no further batch is read.

    Raises:
        ConfigError: the run has no experience.
    """

    def __init__(
        self,
        run: Path,
        tasks: TaskSet,
        max_staleness: int,
        deadline_s: float,
        lessons: Lessons,
        stop: asyncio.Event,
    ) -> None:
        self.waits = Waits()
        self._files = RunFolder(run)
        self._tasks = tasks
        self._max_staleness = max_staleness
        self._deadline_s = deadline_s
        self._lessons = lessons
        self._stop = stop
        self._stale = 0
        self._librarian: Any = None
        if not self._files.experience_file(1).exists():
            raise ConfigError(f"{run} holds no experience to learn from; run it with output.experience=states")

    async def batches(
        self, rollouts: RolloutPool, judges: JudgePanel, learner: Learner, updates: range
    ) -> AsyncIterator[list[ScoredGroup]]:
        """Yield the batch of each update that the log has, until a stop is asked for."""
        self._librarian = LibrarianActor.options(**beside_the_driver()).remote(self._files.path)
        for update in updates:
            if self._stop.is_set() or not self._files.experience_file(update + 1).exists():
                return
            reading = self._librarian.update.remote(update + 1)
            parts = await self.waits.within(
                self._deadline_s, reading, "the learner", f"the experience of update {update + 1} to be read"
            )
            batch = [self._scored(*part) for part in parts]
            fresh = [item for item in batch if self._is_fresh(item, learner)]
            if not fresh:
                raise ConfigError(
                    f"every group of update {update + 1} in {self._files.path} is older than loop.max_staleness = "
                    f"{self._max_staleness} versions; raise it to learn from them"
                )
            for item in fresh:
                self._lessons.learn(item.scores)
            yield fresh

    @property
    def counts(self) -> dict[str, int]:
        """How many groups were left out as too old."""
        return {"dropped_stale": self._stale}

    def seconds_waited(self) -> dict[str, float]:
        """Nobody is waited for but the disk."""
        return {}

    async def cancel(self) -> None:
        """Let the librarian go."""
        if self._librarian is not None:
            ray.kill(self._librarian)
            self._librarian = None

    def _scored(self, receipt: RolloutReceipt, scores: GroupScores, group: Any, conditions: Any) -> ScoredGroup:
        task = self._tasks.find(receipt.task_id)
        if task is None:
            raise ConfigError(f"task {receipt.task_id!r} of the log is not in data.train; name the data of that run")
        return ScoredGroup(task, receipt, scores, group, conditions)

    def _is_fresh(self, item: ScoredGroup, learner: Learner) -> bool:
        age = learner.version.number - item.receipt.policy.number
        if 0 <= age <= self._max_staleness:
            return True
        self._stale += 1
        return False
