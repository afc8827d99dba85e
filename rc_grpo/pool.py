"""An elastic pool of workers that may die: lease the least busy, call it with a deadline, replace it when it is lost.

Knows no cluster: a worker is any object, and whoever makes the pool says how one is started, stopped, and which
exceptions mean that it is gone. One asyncio loop owns a pool; nothing here is thread-safe.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from rc_grpo.config import PoolConfig
from rc_grpo.pool_statistics import PoolStatistics
from rc_grpo.seats import Member, Seat, Seats, Worker
from rc_grpo.storable import last_line
from rc_grpo.waiting import DeadlineExceededError, Waits, timed

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
_LOOK_EVERY_S = 1.0


class PoolError(RuntimeError):
    """The pool cannot do its work; the message says what was tried."""


class WorkerPool(Generic[Worker]):
    """Workers of one kind, each with so many calls at a time.

    A call goes to the worker with the fewest calls under way; callers who find all workers full are served in order.

    Args:
        role: prefix of the workers' names.
        config: size, deadlines, attempts.
        start: starts the worker of a name and returns when it can be used; cleans up after itself when cancelled.
        stop: ends a worker, dead or alive, without waiting.
        lost: exception types that mean a worker is gone, as opposed to a call that failed.
        unable: exception types that mean a worker cannot serve for now; it gets no calls until it has recovered.
        recover: returns when such a worker can be used again; one that does not in ``start_deadline_s`` is replaced.
        drain: lets a worker that leaves end what it has of its own, before it is stopped.
        alive: returns when a worker answers at all. Idle ones are asked every second, so that one that died is replaced
            before there is a call for it.
        calls_at_a_time: that one worker is given.
    """

    def __init__(
        self,
        role: str,
        config: PoolConfig,
        start: Callable[[str], Awaitable[Worker]],
        stop: Callable[[Worker], None],
        lost: tuple[type[BaseException], ...],
        *,
        unable: tuple[type[BaseException], ...] = (),
        recover: Callable[[Worker], Awaitable[object]] | None = None,
        drain: Callable[[Worker], Awaitable[object]] | None = None,
        alive: Callable[[Worker], Awaitable[object]] | None = None,
        calls_at_a_time: int = 1,
    ) -> None:
        self.role = role
        self.statistics = PoolStatistics()
        self.waits = Waits()
        self.size = config.workers
        """Workers that the pool is meant to have; see `resize`."""
        self.autoscale = config.autoscale
        self._config = config
        self._start = start
        self._stop = stop
        self._lost = lost
        self._lost_or_late: tuple[type[BaseException], ...] = (*lost, DeadlineExceededError)
        self._lost_or_unable: tuple[type[BaseException], ...] = (*lost, *unable)
        self._unable = unable
        self._recover = recover
        self._drain = drain
        self._alive = alive
        self._seats: Seats[Worker] = Seats(calls_at_a_time)
        self._joining: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._closed = False

    @property
    def members(self) -> tuple[Member[Worker], ...]:
        """The workers that are up: idle, busy, or about to leave."""
        return tuple(seat.member for seat in self._seats)

    @property
    def summary(self) -> dict[str, float]:
        """Workers by what they do, what happened to them, calls that wait and busy seconds, for metrics."""
        return {
            "workers": sum(not seat.leaving for seat in self._seats),
            "wanted": self.size,
            "starting": len(self._joining),
            "leaving": sum(seat.leaving for seat in self._seats),
            "resting": sum(seat.resting for seat in self._seats),
            "lost": self.statistics.lost,
            "failed_starts": self.statistics.failed_starts,
            "queued": self._seats.queued,
            "busy_seconds": self._seats.busy_seconds,
        }

    async def open(self) -> None:
        """Start all workers; returns when every one can be used.

        Raises:
            PoolError: a worker ended while it started; with the reason it gave.
            DeadlineExceededError: a worker was not up within ``start_deadline_s``.
        """
        await asyncio.gather(*(self._add() for _ in range(self.size)))

    def close(self) -> None:
        """Stop all workers."""
        self._closed = True
        for task in self._background:
            task.cancel()
        for seat in self._seats:
            self._seats.remove(seat)
            self._stop(seat.member.handle)

    def resize(self, size: int) -> None:
        """Make ``size`` the number of workers, while calls go on.

        New workers join when they are up. Workers too many get no new calls, finish what they have, and leave. What
        cannot be started for now (no room in the cluster) is tried again for as long as it is wanted.

        Raises:
            ValueError: fewer than one worker.
        """
        if size < 1:
            raise ValueError(f"the {self.role} pool needs at least one worker, not {size}")
        self.size = size
        self._settle()

    async def run(self, what: str, call: Callable[[Member[Worker]], Awaitable[Result]]) -> Result:
        """Give a call to the least busy worker; if that is lost, silent or unable, to another.

        Args:
            what: the call in words, for errors.
            call: must give the same result on any worker.

        Raises:
            PoolError: ``attempts`` workers were lost on this call, or no replacement could be started.
            Exception: whatever the call itself raised; that is not tried again.
        """
        for attempt in range(1, self._config.attempts + 1):
            seat = await self._lease(what)
            try:
                return await self._answer(seat, what, call)
            except self._lost as error:
                self._replace(
                    seat, f"{seat.member.name} was lost during {what} (attempt {attempt}): {last_line(error)}"
                )
            except self._unable as error:
                self._rest(seat, f"{seat.member.name} could not serve {what} (attempt {attempt}): {last_line(error)}")
            except DeadlineExceededError as error:
                self._replace(seat, f"{last_line(error)} (attempt {attempt})")
            finally:
                self._release(seat)
        raise PoolError(
            f"{what} was given to {self._config.attempts} {self.role} workers and each failed it; "
            f"last: {self.statistics.reasons[-1]}"
        )

    async def on_idle(self, what: str, call: Callable[[Member[Worker]], Awaitable[object]]) -> None:
        """Run a call on every worker that is idle now; one that is lost meanwhile is replaced."""

        async def one(seat: Seat[Worker]) -> None:
            try:
                await self._answer(seat, what, call)
            except self._lost as error:
                self._lost_while_idle(seat, error)
            except DeadlineExceededError as error:
                self._replace(seat, f"{last_line(error)}, being idle")
            finally:
                self._release(seat)

        idle = [seat for seat in self._seats if seat.idle]
        for seat in idle:
            self._seats.occupy(seat)
        await asyncio.gather(*(one(seat) for seat in idle))

    def in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let some work for the pool go on beside its calls; should it fail, the pool says so to whoever calls next."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    async def _answer(
        self, seat: Seat[Worker], what: str, call: Callable[[Member[Worker]], Awaitable[Result]]
    ) -> Result:
        name, deadline = seat.member.name, self._config.call_deadline_s
        with self.waits.on(f"the {self.role} pool", f"{name} to answer {what}", deadline):
            answer = await timed(deadline, call(seat.member), f"{name} did not answer {what} within {deadline:g} s")
        seat.unable = 0
        return answer

    async def _lease(self, what: str) -> Seat[Worker]:
        if self._failure is not None:
            raise self._broken(self._failure)
        if not self._seats and not self._joining:
            raise PoolError(f"there are no {self.role} workers; was the pool opened?")
        with self.waits.on(what, f"a free {self.role} worker"):
            return await self._seats.lease()

    def _release(self, seat: Seat[Worker]) -> None:
        self._seats.release(seat)
        if seat.leaving and not seat.calls:
            self._let_go(seat)

    async def _add(self) -> None:
        name = f"{self.role}-{self.statistics.started}"
        self.statistics.started += 1
        deadline = self._config.start_deadline_s
        with self.waits.on(f"the {self.role} pool", f"{name} to start", deadline):
            late = f"{name} was not up within start_deadline_s = {deadline:g} s"
            try:
                handle = await timed(deadline, self._start(name), late)
            except self._lost as error:
                # What ended it is the last line of pages that a remote error's text is.
                raise PoolError(f"{name} ended while it started: {last_line(error)}") from error
        if self._closed:
            self._stop(handle)
            return
        seat = self._seats.add(Member(name, handle))
        if self._alive is not None:
            self.in_background(self._watch(seat, self._alive))

    async def _watch(self, seat: Seat[Worker], alive: Callable[[Worker], Awaitable[object]]) -> None:
        while seat in tuple(self._seats):
            try:
                if seat.idle:
                    await alive(seat.member.handle)
            except self._lost as error:
                self._lost_while_idle(seat, error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _join(self) -> None:
        """Start one worker more; tried again for as long as other workers keep the pool going."""
        while True:
            try:
                await self._add()
                # At once, not when the loop comes to it: whoever loses the worker first would count it twice.
                self._joined(asyncio.current_task())
                return
            except Exception as error:
                self.statistics.failed_starts += 1
                self.statistics.note(last_line(error))
                if not self._seats and len(self._joining) == 1:
                    raise
                pause = self._config.start_retry_s
                logger.warning(
                    "a %s worker could not be started, again in %g s: %s", self.role, pause, last_line(error)
                )
            await asyncio.sleep(pause)

    def _settle(self) -> None:
        """Bring the number of workers towards what it is meant to be."""
        if self._closed:
            return
        staying = [seat for seat in self._seats if not seat.leaving]
        missing = self.size - len(staying) - len(self._joining)
        for seat in [seat for seat in self._seats if seat.leaving][: max(0, missing)]:
            seat.leaving = False
            missing -= 1
        for _ in range(missing):
            task = self.in_background(self._join())
            self._joining.append(task)
            task.add_done_callback(self._joined)
        for _ in range(-missing):
            if self._joining:
                self._joining.pop().cancel()
                continue
            seat = min(staying, key=lambda seat: (seat.calls, not seat.resting))
            staying.remove(seat)
            seat.leaving = True
            if not seat.calls:
                self._let_go(seat)
        self._seats.serve()

    def _joined(self, task: asyncio.Task[None] | None) -> None:
        if task in self._joining:
            self._joining.remove(task)

    def _let_go(self, seat: Seat[Worker]) -> None:
        if self._seats.remove(seat):
            self.statistics.left += 1
            self.in_background(self._leave(seat.member))

    async def _leave(self, member: Member[Worker]) -> None:
        try:
            if self._drain is not None:
                what = f"{member.name} to drain"
                await self.waits.within(
                    self._config.call_deadline_s, self._drain(member.handle), f"the {self.role} pool", what
                )
        except self._lost_or_late as error:
            logger.warning("%s left without draining: %s", member.name, last_line(error))
        finally:
            self._stop(member.handle)

    def _lost_while_idle(self, seat: Seat[Worker], error: BaseException) -> None:
        self._replace(seat, f"{seat.member.name} was lost while idle: {last_line(error)}")

    def _replace(self, seat: Seat[Worker], reason: str) -> None:
        if not self._seats.remove(seat):
            return  # Several calls were under way on it, and another one noticed first.
        logger.warning("%s; starting another", reason)
        self.statistics.lost += 1
        self.statistics.note(reason)
        self._stop(seat.member.handle)
        self._settle()

    def _rest(self, seat: Seat[Worker], reason: str) -> None:
        if seat.resting or seat not in tuple(self._seats):
            return
        logger.warning("%s; it rests until it has recovered", reason)
        seat.resting = True
        seat.unable += 1
        self.statistics.rested += 1
        self.statistics.note(reason)
        self.in_background(self._recovery(seat))

    async def _recovery(self, seat: Seat[Worker]) -> None:
        assert self._recover is not None, "a pool whose workers can be unable needs a way for them to recover"
        name, deadline = seat.member.name, self._config.start_deadline_s
        with self.waits.on(f"the {self.role} pool", f"{name} to recover", deadline):
            try:
                late = f"{name} did not recover within {deadline:g} s"
                await timed(deadline, self._recover(seat.member.handle), late)
            except DeadlineExceededError as error:
                self._replace(seat, last_line(error))
            except self._lost_or_unable as error:
                self._replace(seat, f"{name} did not recover: {last_line(error)}")
            else:
                await asyncio.sleep(seat.pause)
                self._seats.recovered(seat)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._seats.refuse(self._broken(error))

    def _broken(self, error: BaseException) -> PoolError:
        return PoolError(f"the {self.role} pool cannot go on: {last_line(error)}")
