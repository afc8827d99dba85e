"""What the control loop asks of whoever brings the learner its batches; it comes in two kinds."""

from collections.abc import AsyncIterator
from typing import Protocol

from learner.protocol import Learner
from rc_grpo.messages import ScoredGroup
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool


class Source(Protocol):
    """Brings the learner its batches: `deploy.batches.collector.Collector`, or `deploy.batches.feed.Feed`."""

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
