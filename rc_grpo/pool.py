"""An elastic pool of workers that may die: lease the least busy, call it with a deadline, replace it when it is lost.

Knows no cluster: a worker is any object, and whoever makes the pool says how one is started, stopped, and which
exceptions mean that it is gone. One asyncio loop owns a pool; nothing here is thread-safe.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rc_grpo.config import PoolConfig

logger = logging.getLogger(__name__)
Worker = TypeVar("Worker")
Result = TypeVar("Result")


class DeadlineExceededError(TimeoutError):
    """Somebody was waited for longer than the configuration allows; the message says who, for what, and how long."""


async def within(seconds: float, awaitable: Awaitable[Result], who: str, what: str) -> Result:
    """Await something that may not take for ever.

    Raises:
        DeadlineExceededError: it took longer than ``seconds``; names who waited, how long, for what.
    """
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except TimeoutError as error:
        raise DeadlineExceededError(f"{who} waited {seconds:g} s for {what}") from error


class PoolError(RuntimeError):
    """The pool cannot do its work; the message says what was tried."""


@dataclass(frozen=True)
class Member(Generic[Worker]):
    """A worker and the name it reports under."""

    name: str
    handle: Worker


@dataclass(eq=False)
class _Seat(Generic[Worker]):
    """A member and what it is doing."""

    member: Member[Worker]
    calls: int = 0
    busy_since: float = 0.0
    last_served: int = 0
    resting: bool = False


@dataclass
class PoolStatistics:
    """What happened in a pool since it started."""

    started: int = 0
    lost: int = 0
    rested: int = 0
    busy_seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


class WorkerPool(Generic[Worker]):
    """Workers of one kind, each with so many calls at a time.

    A call goes to the worker with the fewest calls under way; callers who find all workers full are served in order.

    Args:
        role: prefix of the workers' names.
        config: size, deadlines, attempts.
        start: starts the worker of a name and returns when it can be used.
        stop: ends a worker, dead or alive, without waiting.
        lost: exception types that mean a worker is gone, as opposed to a call that failed.
        unable: exception types that mean a worker cannot serve for now; it gets no calls until it has recovered.
        recover: returns when such a worker can be used again; one that does not in ``start_deadline_s`` is replaced.
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
        calls_at_a_time: int = 1,
    ) -> None:
        self.role = role
        self.statistics = PoolStatistics()
        self._config = config
        self._start = start
        self._stop = stop
        self._lost = lost
        self._unable = unable
        self._recover = recover
        self._calls_at_a_time = calls_at_a_time
        self._seats: dict[str, _Seat[Worker]] = {}
        self._queue: deque[asyncio.Future[_Seat[Worker]]] = deque()
        self._served = 0
        self._background: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    @property
    def members(self) -> tuple[Member[Worker], ...]:
        """The workers that are up, idle or busy."""
        return tuple(seat.member for seat in self._seats.values())

    @property
    def summary(self) -> dict[str, float]:
        """Workers up, workers lost, calls that wait and busy seconds since the start, for metrics."""
        now = time.monotonic()
        working = sum(now - seat.busy_since for seat in self._seats.values() if seat.calls)
        return {
            "workers": len(self._seats),
            "resting": sum(seat.resting for seat in self._seats.values()),
            "lost": self.statistics.lost,
            "queued": len(self._queue),
            "busy_seconds": self.statistics.busy_seconds + working,
        }

    async def open(self) -> None:
        """Start all workers; returns when every one can be used.

        Raises:
            DeadlineExceededError: a worker was not up within ``start_deadline_s``.
        """
        await asyncio.gather(*(self._add() for _ in range(self._config.workers)))

    def close(self) -> None:
        """Stop all workers."""
        for task in self._background:
            task.cancel()
        for seat in self._seats.values():
            self._stop(seat.member.handle)
        self._seats.clear()

    async def run(self, what: str, call: Callable[[Member[Worker]], Awaitable[Result]]) -> Result:
        """Give a call to the least busy worker; if that is lost, silent or unable, to another.

        Args:
            what: the call in words, for errors.
            call: must give the same result on any worker.

        Raises:
            PoolError: ``attempts`` workers were lost on this call, or no replacement could be started.
            Exception: whatever the call itself raised; that is not tried again.
        """
        deadline = self._config.call_deadline_s
        for attempt in range(1, self._config.attempts + 1):
            seat = await self._lease()
            name = seat.member.name
            try:
                return await asyncio.wait_for(call(seat.member), deadline)
            except self._lost as error:
                self._replace(seat, f"{name} was lost during {what} (attempt {attempt}): {_gist(error)}")
            except self._unable as error:
                self._rest(seat, f"{name} could not serve {what} (attempt {attempt}): {_gist(error)}")
            except TimeoutError:
                self._replace(seat, f"{name} did not answer {what} within {deadline:g} s (attempt {attempt})")
            finally:
                self._release(seat)
        raise PoolError(
            f"{what} was given to {self._config.attempts} {self.role} workers and each failed it; "
            f"last: {self.statistics.reasons[-1]}"
        )

    async def on_idle(self, call: Callable[[Member[Worker]], Awaitable[object]]) -> None:
        """Run a call on every worker that is idle now; one that is lost meanwhile is replaced."""
        deadline = self._config.call_deadline_s

        async def one(seat: _Seat[Worker]) -> None:
            name = seat.member.name
            try:
                await asyncio.wait_for(call(seat.member), deadline)
            except self._lost as error:
                self._replace(seat, f"{name} was lost while idle: {_gist(error)}")
            except TimeoutError:
                self._replace(seat, f"{name} did not answer within {deadline:g} s while idle")
            finally:
                self._release(seat)

        idle = [seat for seat in self._seats.values() if not seat.calls and not seat.resting]
        for seat in idle:
            self._occupy(seat)
        await asyncio.gather(*(one(seat) for seat in idle))

    async def _lease(self) -> _Seat[Worker]:
        if self._failure is not None:
            raise self._unreplaced(self._failure)
        if not self._seats and not self._background:
            raise PoolError(f"there are no {self.role} workers; was the pool opened?")
        turn: asyncio.Future[_Seat[Worker]] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release(turn.result())
            raise

    def _serve(self) -> None:
        """Give free places to whoever has waited longest."""
        while self._queue:
            if self._queue[0].done():
                self._queue.popleft()
                continue
            free = [seat for seat in self._seats.values() if seat.calls < self._calls_at_a_time and not seat.resting]
            if not free:
                return
            seat = min(free, key=lambda seat: (seat.calls, seat.last_served))
            self._occupy(seat)
            self._queue.popleft().set_result(seat)

    def _occupy(self, seat: _Seat[Worker]) -> None:
        if not seat.calls:
            seat.busy_since = time.monotonic()
        seat.calls += 1
        self._served += 1
        seat.last_served = self._served

    def _release(self, seat: _Seat[Worker]) -> None:
        seat.calls -= 1
        if not seat.calls:
            self.statistics.busy_seconds += time.monotonic() - seat.busy_since
        self._serve()

    async def _add(self) -> None:
        name = f"{self.role}-{self.statistics.started}"
        self.statistics.started += 1
        deadline = self._config.start_deadline_s
        try:
            handle = await asyncio.wait_for(self._start(name), deadline)
        except TimeoutError as error:
            raise DeadlineExceededError(f"{name} was not up within start_deadline_s = {deadline:g} s") from error
        self._seats[name] = _Seat(Member(name, handle))
        self._serve()

    def _replace(self, seat: _Seat[Worker], reason: str) -> None:
        if self._seats.pop(seat.member.name, None) is None:
            return  # Several calls were under way on it, and another one noticed first.
        logger.warning("%s; starting another", reason)
        self.statistics.lost += 1
        self.statistics.reasons.append(reason)
        self._stop(seat.member.handle)
        self._spawn(self._add())

    def _rest(self, seat: _Seat[Worker], reason: str) -> None:
        if seat.resting or seat.member.name not in self._seats:
            return
        logger.warning("%s; it rests until it has recovered", reason)
        seat.resting = True
        self.statistics.rested += 1
        self.statistics.reasons.append(reason)
        self._spawn(self._recovery(seat))

    async def _recovery(self, seat: _Seat[Worker]) -> None:
        assert self._recover is not None, "a pool whose workers can be unable needs a way for them to recover"
        name, deadline = seat.member.name, self._config.start_deadline_s
        try:
            await asyncio.wait_for(self._recover(seat.member.handle), deadline)
        except TimeoutError:
            self._replace(seat, f"{name} did not recover within {deadline:g} s")
        except (*self._lost, *self._unable) as error:
            self._replace(seat, f"{name} did not recover: {_gist(error)}")
        else:
            seat.resting = False
            self._serve()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            while self._queue:
                turn = self._queue.popleft()
                if not turn.done():
                    turn.set_exception(self._unreplaced(error))

    def _unreplaced(self, error: BaseException) -> PoolError:
        return PoolError(f"a {self.role} worker could not be replaced: {error}")


def _gist(error: BaseException) -> str:
    """Return the last line of an error's text: a remote error's is a whole traceback, whose end says what it was."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else repr(error)
