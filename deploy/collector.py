"""The collector: keeps rollouts and scorings under way and yields batches as the ledger cuts them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from deploy.ledger import Ledger, Ticket
from learner.group import LearnerGroup
from rc_grpo.messages import EditTask, ScoredGroup
from reward_service.pool import RewardPool
from rollout_workers.pool import RolloutPool


class Collector:
    """Turns tickets into scored groups.

    Args:
        ledger: whose tickets are worked off.
        tasks: the training data.
        group_size: G.
    """

    def __init__(self, ledger: Ledger, tasks: Sequence[EditTask], group_size: int) -> None:
        self.ledger = ledger
        self._tasks = tasks
        self._group_size = group_size
        self._under_way: set[asyncio.Task[tuple[Ticket, ScoredGroup]]] = set()
        self._waited = 0.0

    def take_waited_seconds(self) -> float:
        """Return how long the learner waited for groups since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    async def batches(
        self, rollouts: RolloutPool, judges: RewardPool, learner: LearnerGroup, updates: range
    ) -> AsyncIterator[list[ScoredGroup]]:
        """Yield one batch for each update.

        Rollouts and scorings go on while the caller learns, as far ahead as the staleness bound lets them; with a bound
        of 0 nothing starts before the caller comes back for the next batch.
        """
        for update in updates:
            started = time.monotonic()
            while (batch := self.ledger.cut(learner.version.number)) is None:
                for ticket in self.ledger.dispatch(update):
                    self._under_way.add(asyncio.create_task(self._collect(ticket, rollouts, judges)))
                done, self._under_way = await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    self.ledger.admit(*task.result(), learner.version.number)
            self._waited += time.monotonic() - started
            yield batch

    def cancel(self) -> None:
        """Give up what is under way."""
        for task in self._under_way:
            task.cancel()
        self._under_way.clear()

    async def _collect(self, ticket: Ticket, rollouts: RolloutPool, judges: RewardPool) -> tuple[Ticket, ScoredGroup]:
        task = self._tasks[ticket.task]
        rollout = await rollouts.rollout(task, self.ledger.seeds(ticket, task.task_id, self._group_size))
        scores = await judges.score(task, rollout.group)
        return ticket, ScoredGroup(task, rollout.receipt, scores, rollout.group, rollout.conditions)
