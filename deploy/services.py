"""What the loop asks of a learner and of whoever brings it batches; each comes in two kinds."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from learner.group import UpdateReport
from rc_grpo.messages import PolicyVersion, ScoredGroup
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool


class Learner(Protocol):
    """Turns batches into versions: `learner.group.LearnerGroup`, or `deploy.still.StillLearner`."""

    waits: Waits
    weights: Any

    @property
    def is_open(self) -> bool:
        """It can be asked."""
        ...

    @property
    def has_published(self) -> bool:
        """There is a version."""
        ...

    @property
    def version(self) -> PolicyVersion:
        """The version last published."""
        ...

    async def open(self) -> None:
        """Start it."""
        ...

    def close(self) -> None:
        """End it."""
        ...

    async def publish(self) -> tuple[PolicyVersion, Any]:
        """Return the current version and a reference to its weights."""
        ...

    async def update(self, batch: Sequence[ScoredGroup]) -> UpdateReport:
        """Learn from a batch."""
        ...

    async def export(self, folder: Path) -> str | None:
        """Write the policy for diffusers and return its digest; None where there is nothing new to write."""
        ...

    async def save(self, folder: Path, tag: str) -> None:
        """Write what `load` needs to ``folder/tag``."""
        ...

    async def load(self, folder: Path, tag: str) -> None:
        """Go back to what `save` wrote."""
        ...


class Source(Protocol):
    """Brings the learner its batches: `deploy.collector.Collector`, or `deploy.feed.Feed`."""

    waits: Waits

    def batches(
        self, rollouts: RolloutPool, judges: JudgePanel, learner: Learner, updates: range
    ) -> AsyncIterator[list[ScoredGroup]]:
        """Yield one batch for each update, until a stop is asked for."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """What became of the groups so far, by name."""
        ...

    def seconds_waited(self) -> dict[str, float]:
        """Return how long the learner waited since this was last asked, by what it waited for."""
        ...

    async def cancel(self) -> None:
        """Give up what is under way."""
        ...
