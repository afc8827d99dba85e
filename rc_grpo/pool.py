"""An elastic pool of workers that may die: lease one, call it with a deadline, replace it when it is lost.

Knows no cluster: a worker is any object, and whoever makes the pool says how one is started, stopped, and which
exceptions mean that it is gone. One asyncio loop owns a pool; nothing here is thread-safe.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

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


@dataclass
class PoolStatistics:
    """What happened in a pool since it started."""

    started: int = 0
    lost: int = 0
    busy_seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


class WorkerPool(Generic[Worker]):
    """Workers of one kind, each doing one call at a time.

    Args:
        role: prefix of the workers' names.
        config: size, deadlines, attempts.
        start: starts the worker of a name and returns when it can be used.
        stop: ends a worker, dead or alive, without waiting.
        lost: exception types that mean a worker is gone, as opposed to a call that failed.
    """

    def __init__(
        self,
        role: str,
        config: PoolConfig,
        start: Callable[[str], Awaitable[Worker]],
        stop: Callable[[Worker], None],
        lost: tuple[type[BaseException], ...],
    ) -> None:
        self.role = role
        self.statistics = PoolStatistics()
        self._config = config
        self._start = start
        self._stop = stop
        self._lost = lost
        self._members: dict[str, Member[Worker]] = {}
        self._idle: asyncio.Queue[Member[Worker]] = asyncio.Queue()
        self._replacements: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    @property
    def members(self) -> tuple[Member[Worker], ...]:
        """The workers that are up, idle or busy."""
        return tuple(self._members.values())

    @property
    def summary(self) -> dict[str, float]:
        """Workers up, workers lost and busy seconds since the start, for metrics."""
        return {
            "workers": len(self._members),
            "lost": self.statistics.lost,
            "busy_seconds": self.statistics.busy_seconds,
        }

    async def open(self) -> None:
        """Start all workers; returns when every one can be used.

        Raises:
            DeadlineExceededError: a worker was not up within ``start_deadline_s``.
        """
        await asyncio.gather(*(self._add() for _ in range(self._config.workers)))

    def close(self) -> None:
        """Stop all workers."""
        for task in self._replacements:
            task.cancel()
        for member in self._members.values():
            self._stop(member.handle)
        self._members.clear()

    async def run(self, what: str, call: Callable[[Member[Worker]], Awaitable[Result]]) -> Result:
        """Give a call to the next free worker; a lost or silent worker is replaced and the call given to another.

        Args:
            what: the call in words, for errors.
            call: must give the same result on any worker.

        Raises:
            PoolError: ``attempts`` workers were lost on this call, or no replacement could be started.
            Exception: whatever the call itself raised; that is not tried again.
        """
        deadline = self._config.call_deadline_s
        for attempt in range(1, self._config.attempts + 1):
            member = await self._lease()
            started = time.monotonic()
            try:
                result = await asyncio.wait_for(call(member), deadline)
            except self._lost as error:
                self._replace(member, f"{member.name} was lost during {what} (attempt {attempt}): {_gist(error)}")
            except TimeoutError:
                self._replace(
                    member,
                    f"{member.name} did not answer {what} within {deadline:g} s (attempt {attempt})",
                )
            except BaseException:
                self._idle.put_nowait(member)
                raise
            else:
                self.statistics.busy_seconds += time.monotonic() - started
                self._idle.put_nowait(member)
                return result
        raise PoolError(
            f"{what} was given to {self._config.attempts} {self.role} workers and each was lost; "
            f"last: {self.statistics.reasons[-1]}"
        )

    async def on_idle(self, call: Callable[[Member[Worker]], Awaitable[object]]) -> None:
        """Run a call on every worker that is idle now; one that is lost meanwhile is replaced."""
        deadline = self._config.call_deadline_s
        idle: list[Member[Worker]] = []
        while not self._idle.empty():
            idle.append(self._idle.get_nowait())

        async def one(member: Member[Worker]) -> None:
            try:
                await asyncio.wait_for(call(member), deadline)
            except self._lost as error:
                self._replace(member, f"{member.name} was lost while idle: {_gist(error)}")
            except TimeoutError:
                self._replace(member, f"{member.name} did not answer within {deadline:g} s while idle")
            except BaseException:
                self._idle.put_nowait(member)
                raise
            else:
                self._idle.put_nowait(member)

        await asyncio.gather(*(one(member) for member in idle))

    async def _lease(self) -> Member[Worker]:
        while True:
            if self._failure is not None:
                raise PoolError(f"a {self.role} worker could not be replaced: {self._failure}") from self._failure
            if self._idle.empty() and not self._members and not self._replacements:
                raise PoolError(f"there are no {self.role} workers; was the pool opened?")
            try:
                # Wakes up now and then only to notice a failed replacement.
                return await asyncio.wait_for(self._idle.get(), 5.0)
            except TimeoutError:
                continue

    async def _add(self) -> None:
        name = f"{self.role}-{self.statistics.started}"
        self.statistics.started += 1
        deadline = self._config.start_deadline_s
        try:
            handle = await asyncio.wait_for(self._start(name), deadline)
        except TimeoutError as error:
            raise DeadlineExceededError(f"{name} was not up within start_deadline_s = {deadline:g} s") from error
        member = Member(name, handle)
        self._members[name] = member
        self._idle.put_nowait(member)

    def _replace(self, member: Member[Worker], reason: str) -> None:
        logger.warning("%s; starting another", reason)
        self.statistics.lost += 1
        self.statistics.reasons.append(reason)
        self._members.pop(member.name, None)
        self._stop(member.handle)
        task = asyncio.get_running_loop().create_task(self._add())
        self._replacements.add(task)
        task.add_done_callback(self._replaced)

    def _replaced(self, task: asyncio.Task[None]) -> None:
        self._replacements.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error


def _gist(error: BaseException) -> str:
    """Return the last line of an error's text: a remote error's is a whole traceback, whose end says what it was."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else repr(error)
