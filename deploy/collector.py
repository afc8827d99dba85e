"""The collector: keeps rollouts and scorings under way and yields batches as the ledger cuts them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from deploy.ledger import Ledger, Ticket
from learner.group import LearnerGroup
from rc_grpo.messages import EditTask, ScoredGroup
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool


class Waits:
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
    """

    def __init__(self, ledger: Ledger, tasks: Sequence[EditTask], group_size: int) -> None:
        self.ledger = ledger
        self.waits = Waits()
        self._tasks = tasks
        self._group_size = group_size
        self._under_way: set[asyncio.Task[tuple[Ticket, ScoredGroup]]] = set()

    async def batches(
        self, rollouts: RolloutPool, judges: JudgePanel, learner: LearnerGroup, updates: range
    ) -> AsyncIterator[list[ScoredGroup]]:
        """Yield one batch for each update.

        Rollouts and scorings go on while the caller learns, as far ahead as the staleness bound lets them; with a bound
        of 0 nothing starts before the caller comes back for the next batch.
        """
        for update in updates:
            with self.waits.waiting():
                while (batch := self.ledger.cut(learner.version.number)) is None:
                    for ticket in self.ledger.dispatch(update):
                        self._under_way.add(asyncio.create_task(self._collect(ticket, rollouts, judges)))
                    done, self._under_way = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        self.ledger.admit(*task.result(), learner.version.number)
            yield batch

    def cancel(self) -> None:
        """Give up what is under way."""
        for task in self._under_way:
            task.cancel()
        self._under_way.clear()

    async def _collect(self, ticket: Ticket, rollouts: RolloutPool, judges: JudgePanel) -> tuple[Ticket, ScoredGroup]:
        task = self._tasks[ticket.task]
        with self.waits.rolling_out():
            rollout = await rollouts.rollout(task, self.ledger.seeds(ticket, task.task_id, self._group_size))
        scores = await judges.score(task, rollout.group)
        return ticket, ScoredGroup(task, rollout.receipt, scores, rollout.group, rollout.conditions)
