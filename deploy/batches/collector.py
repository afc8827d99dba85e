"""The collector: keeps rollouts and scorings under way and yields batches as the ledger cuts them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from ray.exceptions import ObjectLostError

from deploy.batches.ledger import Ledger, Ticket
from deploy.batches.lessons import Lessons
from learner.protocol import Learner
from rc_grpo.messages import EditTask, ScoredGroup
from rc_grpo.pool import PoolError
from rc_grpo.waiting import Waits
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool

logger = logging.getLogger(__name__)


class IdleTime:
    """How long the learner waited, and for whom: for scores alone, or for rollouts as well."""

    def __init__(self) -> None:
        self.rollouts_under_way = 0
        self._seconds = {"rollouts": 0.0, "scores": 0.0}
        self._waiting = False
        self._mark = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The learner waits."""
        self._count()
        self._waiting = True
        try:
            yield
        finally:
            self._count()
            self._waiting = False

    @contextmanager
    def rolling_out(self) -> Iterator[None]:
        """A rollout is wanted or under way."""
        self._count()
        self.rollouts_under_way += 1
        try:
            yield
        finally:
            self._count()
            self.rollouts_under_way -= 1

    def take(self) -> dict[str, float]:
        """Return the seconds waited for ``rollouts`` and for ``scores`` since this was last asked."""
        self._count()
        taken, self._seconds = self._seconds, {"rollouts": 0.0, "scores": 0.0}
        return taken

    def _count(self) -> None:
        now = time.monotonic()
        if self._waiting:
            self._seconds["rollouts" if self.rollouts_under_way else "scores"] += now - self._mark
        self._mark = now


class Collector:
    """Turns tickets into scored groups.

    Args:
        ledger: whose tickets are worked off.
        tasks: the training data.
        group_size: G.
        attempts: how often a group is made whose trajectories are lost with the node that held them.
        lessons: counts what the groups are worth.
        stop: once set, no further batch is waited for.
    """

    def __init__(
        self,
        ledger: Ledger,
        tasks: Sequence[EditTask],
        group_size: int,
        attempts: int,
        lessons: Lessons,
        stop: asyncio.Event,
    ) -> None:
        self.ledger = ledger
        self.idle = IdleTime()
        self.waits = Waits()
        self.remade = 0
        """Groups that were rolled out again because their trajectories were lost."""
        self._tasks = tasks
        self._group_size = group_size
        self._attempts = attempts
        self._lessons = lessons
        self._stop = stop
        self._under_way: set[asyncio.Task[tuple[Ticket, ScoredGroup]]] = set()

    async def batches(
        self, rollouts: RolloutPool, judges: JudgePanel, learner: Learner, updates: range
    ) -> AsyncIterator[list[ScoredGroup]]:
        """Yield one batch for each update, until a stop is asked for.

        Rollouts and scorings go on while the caller learns, as far ahead as the staleness bound lets them; with a bound
        of 0 nothing starts before the caller comes back for the next batch.
        """
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            for update in updates:
                with self.idle.waiting(), self.waits.on("the learner", f"the groups of update {update + 1}"):
                    while not self._stop.is_set() and (batch := self.ledger.cut(learner.version.number)) is None:
                        for ticket in self.ledger.dispatch(update):
                            self._under_way.add(asyncio.create_task(self._collect(ticket, rollouts, judges)))
                        await self._admit(stopping, learner)
                if self._stop.is_set():
                    return
                yield batch
        finally:
            stopping.cancel()

    @property
    def counts(self) -> dict[str, int]:
        """How many groups the ledger has in which state, and how many were made again."""
        return self.ledger.counts | {"remade": self.remade}

    def seconds_waited(self) -> dict[str, float]:
        """Return how long the learner waited for rollouts and for scores since this was last asked."""
        return self.idle.take()

    async def cancel(self) -> None:
        """Give up what is under way."""
        abandoned, self._under_way = self._under_way, set()
        for task in abandoned:
            task.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)

    async def _admit(self, stopping: "asyncio.Future[bool]", learner: Learner) -> None:
        done, _ = await asyncio.wait({*self._under_way, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in done & self._under_way:
            self._under_way.remove(task)
            ticket, scored = task.result()
            self.ledger.admit(ticket, scored, learner.version.number, self._lessons.learn(scored.scores))

    async def _collect(self, ticket: Ticket, rollouts: RolloutPool, judges: JudgePanel) -> tuple[Ticket, ScoredGroup]:
        task = self._tasks[ticket.task]
        seeds = self.ledger.seeds(ticket, task.task_id, self._group_size)
        for attempt in range(1, self._attempts + 1):
            with self.idle.rolling_out():
                rollout = await rollouts.rollout(task, seeds)
            try:
                scores = await judges.score(task, rollout.group)
            except ObjectLostError:
                # Its node is gone. The same seeds give the same group on another.
                logger.warning("the trajectories of %s were lost (attempt %d); rolling it out again", ticket, attempt)
                self.remade += 1
                continue
            return ticket, ScoredGroup(task, rollout.receipt, scores, rollout.group, rollout.conditions)
        raise PoolError(f"the trajectories of {task.task_id} were lost {self._attempts} times before they were scored")
