"""The seats of a pool: which worker takes the next call. The least busy first; callers are served in order."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Worker = TypeVar("Worker")
_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 30.0


@dataclass(frozen=True)
class Member(Generic[Worker]):
    """A worker and the name it reports under."""

    name: str
    handle: Worker


@dataclass(eq=False)
class Seat(Generic[Worker]):
    """A member and what it is doing.

    Attributes:
        member: whose seat it is.
        calls: under way.
        resting: gets no calls until it has recovered.
        unable: times in a row that it could not serve a call.
        leaving: gets no calls any more.
    """

    member: Member[Worker]
    calls: int = 0
    resting: bool = False
    unable: int = 0
    leaving: bool = False
    _busy_since: float = 0.0
    _last_served: int = 0

    @property
    def pause(self) -> float:
        """Seconds from a recovery to the next call: none at first, then 2, 6, 14.

        A worker that says it is well and fails the next call would take a call's every attempt while others are busy.
        """
        return min(_LONGEST_PAUSE_S, _PAUSE_S * (2.0 ** (self.unable - 1) - 1))

    @property
    def idle(self) -> bool:
        """It has nothing to do and could be given something."""
        return not (self.calls or self.resting or self.leaving)


class Seats(Generic[Worker]):
    """Workers by name, and the callers who wait for one. One asyncio loop owns it.

    Args:
        calls_at_a_time: that one worker is given.
    """

    def __init__(self, calls_at_a_time: int) -> None:
        self._calls_at_a_time = calls_at_a_time
        self._seats: dict[str, Seat[Worker]] = {}
        self._queue: deque[asyncio.Future[Seat[Worker]]] = deque()
        self._served = 0
        self._busy_seconds = 0.0

    def __iter__(self) -> Iterator[Seat[Worker]]:
        return iter(tuple(self._seats.values()))

    def __len__(self) -> int:
        return len(self._seats)

    @property
    def queued(self) -> int:
        """Callers who wait."""
        return sum(not turn.done() for turn in self._queue)

    @property
    def busy_seconds(self) -> float:
        """Seconds in which workers had calls, over all workers that ever were."""
        now = time.monotonic()
        return self._busy_seconds + sum(now - seat._busy_since for seat in self._seats.values() if seat.calls)

    def add(self, member: Member[Worker]) -> Seat[Worker]:
        """Seat a worker."""
        seat = self._seats[member.name] = Seat(member)
        self.serve()
        return seat

    def remove(self, seat: Seat[Worker]) -> bool:
        """Take a seat away; return whether it was still there."""
        return self._seats.pop(seat.member.name, None) is not None

    async def lease(self) -> Seat[Worker]:
        """Wait for a place on the least busy worker, and occupy it."""
        turn: asyncio.Future[Seat[Worker]] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self.serve()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise

    def occupy(self, seat: Seat[Worker]) -> None:
        """Count one call more on a seat."""
        if not seat.calls:
            seat._busy_since = time.monotonic()
        seat.calls += 1
        self._served += 1
        seat._last_served = self._served

    def release(self, seat: Seat[Worker]) -> None:
        """Count one call less on a seat; whoever waits longest gets the place."""
        seat.calls -= 1
        if not seat.calls:
            self._busy_seconds += time.monotonic() - seat._busy_since
        self.serve()

    def recovered(self, seat: Seat[Worker]) -> None:
        """Give calls again to a worker that has rested."""
        seat.resting = False
        self.serve()

    def serve(self) -> None:
        """Give free places to whoever has waited longest."""
        while self._queue:
            if self._queue[0].done():
                self._queue.popleft()
                continue
            free = [
                seat
                for seat in self._seats.values()
                if seat.calls < self._calls_at_a_time and not seat.resting and not seat.leaving
            ]
            if not free:
                return
            seat = min(free, key=lambda seat: (seat.calls, seat._last_served))
            self.occupy(seat)
            self._queue.popleft().set_result(seat)

    def refuse(self, error: BaseException) -> None:
        """Tell all who wait that nobody will come."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_exception(error)
