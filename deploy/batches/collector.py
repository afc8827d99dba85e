"""The collector: keeps rollouts and scorings under way and yields batches as the ledger cuts them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ray.exceptions import ObjectLostError

from deploy.batches.exploring import chosen_of_pool
from deploy.batches.ledger import Ledger, Ticket
from deploy.batches.lessons import Lessons
from learner.protocol import Learner
from rc_grpo.messages import EditTask, Explored, RolloutSeeds, ScoredGroup
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
        pool: M, candidates that a group is chosen from; none makes every group as it is.
    """

    def __init__(
        self,
        ledger: Ledger,
        tasks: Sequence[EditTask],
        group_size: int,
        attempts: int,
        lessons: Lessons,
        stop: asyncio.Event,
        pool: int | None = None,
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
        self._pool = pool
        self._under_way: set[asyncio.Future[Any]] = set()
        self._ended: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()

    async def batches(
        self, rollouts: RolloutPool, judges: JudgePanel, learner: Learner, updates: range
    ) -> AsyncIterator[list[ScoredGroup]]:
        """Yield one batch for each update, until a stop is asked for.

        Rollouts and scorings go on while the caller learns, as far ahead as the staleness bound lets them; with a bound
        of 0 nothing starts before the caller comes back for the next batch.
        """
        stopping = self._awaited(self._stop.wait())
        try:
            for update in updates:
                with self.idle.waiting(), self.waits.on("the learner", f"the groups of update {update + 1}"):
                    while not self._stop.is_set() and (batch := self.ledger.cut(learner.version.number)) is None:
                        for ticket in self.ledger.dispatch(update):
                            self._under_way.add(self._awaited(self._collect(ticket, rollouts, judges)))
                        await self._admit(learner)
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
        abandoned, self._under_way, self._ended = self._under_way, set(), asyncio.Queue()
        for task in abandoned:
            task.cancel()
        await asyncio.gather(*abandoned, return_exceptions=True)

    async def _admit(self, learner: Learner) -> None:
        """Wait until something ends, and take up all the groups that have ended."""
        ended = [await self._ended.get()]
        while not self._ended.empty():
            ended.append(self._ended.get_nowait())
        for task in ended:
            if task not in self._under_way:
                continue  # The wait for a stop, or what was given up.
            self._under_way.remove(task)
            ticket, scored = task.result()
            self.ledger.admit(ticket, scored, learner.version.number, self._lessons.learn(scored.scores))

    def _awaited(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Start something whose end is seen without asking all that goes on: hundreds of groups may be under way."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended.put_nowait)
        return task

    async def _collect(self, ticket: Ticket, rollouts: RolloutPool, judges: JudgePanel) -> tuple[Ticket, ScoredGroup]:
        task = self._tasks[ticket.task]
        for attempt in range(1, self._attempts + 1):
            try:
                seeds, explored, seconds = await self._seeds(ticket, task, rollouts, judges)
                with self.idle.rolling_out():
                    rollout = await rollouts.rollout(task, seeds)
                scores = await judges.score(task, rollout.group)
            except ObjectLostError:
                # Its node is gone. The same seeds give the same group on another.
                logger.warning("the trajectories of %s were lost (attempt %d); rolling it out again", ticket, attempt)
                self.remade += 1
                continue
            receipt = replace(rollout.receipt, seconds=rollout.receipt.seconds | seconds)
            scores = replace(scores, explored=explored)
            return ticket, ScoredGroup(task, receipt, scores, rollout.group, rollout.conditions)
        raise PoolError(f"the trajectories of {task.task_id} were lost {self._attempts} times before they were scored")

    async def _seeds(
        self, ticket: Ticket, task: EditTask, rollouts: RolloutPool, judges: JudgePanel
    ) -> tuple[RolloutSeeds, Explored | None, dict[str, float]]:
        """Return what a ticket's group is made from, the pool that it was chosen from, and how long that took.

        A pool in which too few have a score is no choice: the group is then its first candidates, which fails or not as
        it would without a pool.
        """
        if self._pool is None:
            return self.ledger.seeds(ticket, task.task_id, self._group_size), None, {}
        seeds = self.ledger.seeds(ticket, task.task_id, self._pool)
        with self.idle.rolling_out():
            pool = await rollouts.explore(task, seeds)
        scores = await judges.score(task, pool.group)
        made = pool.receipt
        explored = chosen_of_pool(made.policy, seeds, made.images, scores, self._lessons.weights, self._group_size)
        if explored is None:
            logger.warning("too few of the pool of %s have a score; its first candidates are the group", ticket)
        chosen = range(self._group_size) if explored is None else explored.chosen
        return seeds.of(chosen), explored, {"explore": sum(made.seconds.values())}
