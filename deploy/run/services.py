"""What a run works with: the pools, the learner, and where the learner's batches come from."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from deploy.batches.lessons import Lessons
from deploy.run.assembly import make_ledger, make_services, make_source
from deploy.stopping import Stop
from deploy.watching.progress import Progress
from rc_grpo.config import RunConfig
from rc_grpo.data.tasks import TaskSet
from rc_grpo.pool import WorkerPool


class Services:
    """The three services of a run, and the source of its batches; nothing of it is started before `running`.

    Args:
        config: of the run.
        tasks: the training data.
        stop: once set, no further batch is waited for.
    """

    def __init__(self, config: RunConfig, tasks: TaskSet, stop: asyncio.Event) -> None:
        self.config = config
        self.rollouts, self.judges, self.learner = make_services(config)
        self.ledger = make_ledger(config, tasks)
        """The groups that the run owes."""
        self.lessons = Lessons(config.reward.weights, config.objective)
        """What the groups were worth since something was last learned."""
        self.source = make_source(config, tasks, self.ledger, self.lessons, stop)

    @property
    def pools(self) -> dict[str, WorkerPool[Any]]:
        """The elastic pools by role."""
        return {pool.role: pool for pool in (self.rollouts, *self.judges.pools.values())}

    @asynccontextmanager
    async def running(self, stop: Stop, progress: Progress) -> AsyncIterator[None]:
        """Start what the run needs, run the block, and stop all actors however it ends.

        A run that learns from a log needs no pool. The judges end in their own time.
        """
        fed = self.config.loop.feed is not None
        opening = [self.learner.open()] if fed else [part.open() for part in (self.rollouts, self.judges, self.learner)]
        try:
            with progress.waiting("starting rollout, reward and learner actors"):
                await stop.unless_asked(asyncio.gather(*opening))
            yield
        finally:
            await self.source.cancel()
            await self.judges.drain()
            for part in (self.rollouts, self.judges, self.learner):
                part.close()
