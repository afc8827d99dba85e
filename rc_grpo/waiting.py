"""Waits that can be asked about: who waits for what, for how long, and until when.

Nothing in the system waits for ever, and while it waits it can say so: a component enters each wait in its `Waits`, and
the status of a run is what the components' waits say at that moment.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


async def or_undo(answer: Awaitable[Result], undo: Callable[[], object]) -> Result:
    """Wait for an answer; where none comes, by an error or because the wait was cancelled, undo what it was about."""
    try:
        return await answer
    except BaseException:
        undo()
        raise


def answers(actor: Any) -> Awaitable[object]:
    """Call a Ray actor for nothing: it raises at once where the actor is gone. Ray keeps no record of the call."""
    ready: Awaitable[object] = actor.__ray_ready__.options(enable_task_events=False).remote()
    return ready


class DeadlineExceededError(TimeoutError):
    """Somebody was waited for longer than the configuration allows; the message says who, for what, and how long."""


@dataclass(frozen=True)
class Wait:
    """One wait that goes on.

    Attributes:
        who: waits.
        what: is waited for, as in "waits for ...".
        since: `time.monotonic` at its begin, seconds.
        deadline_s: after which it is given up; None where other deadlines bound it.
    """

    who: str
    what: str
    since: float
    deadline_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it for another process, whose clock is another."""
        return {
            "who": self.who,
            "what": self.what,
            "seconds": time.monotonic() - self.since,
            "deadline_s": self.deadline_s,
        }


async def timed(seconds: float, awaitable: Awaitable[Result], late: str) -> Result:
    """Await something that may not take for ever; a timeout that it raises by itself is its own, and passes.

    Raises:
        DeadlineExceededError: it took longer than ``seconds``; says ``late``.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            return await awaitable
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceededError(late) from error


class Waits:
    """The waits of one component. One asyncio loop owns it."""

    def __init__(self) -> None:
        self._under_way: dict[object, Wait] = {}

    @property
    def now(self) -> tuple[Wait, ...]:
        """The waits that go on, longest first."""
        return tuple(sorted(self._under_way.values(), key=lambda wait: wait.since))

    @contextmanager
    def on(self, who: str, what: str, deadline_s: float | None = None) -> Iterator[None]:
        """Enter a wait for as long as the block runs."""
        key = object()
        self._under_way[key] = Wait(who, what, time.monotonic(), deadline_s)
        try:
            yield
        finally:
            del self._under_way[key]

    async def within(self, seconds: float, awaitable: Awaitable[Result], who: str, what: str) -> Result:
        """Await something that may not take for ever.

        Raises:
            DeadlineExceededError: it took longer than ``seconds``; names who waited, how long, for what.
        """
        with self.on(who, what, seconds):
            return await timed(seconds, awaitable, f"{who} waited {seconds:g} s for {what}")


def in_words(waits: Sequence[Mapping[str, Any]], limit: int) -> list[str]:
    """Return the longest of several waits (see `Wait.as_dict`) as lines, and how many more there are."""
    longest = sorted(waits, key=lambda wait: -wait["seconds"])[:limit]
    lines = []
    for wait in longest:
        until = "" if wait["deadline_s"] is None else f" of {wait['deadline_s']:g}"
        lines.append(f"{wait['who']} waits for {wait['what']} ({wait['seconds']:.1f}{until} s)")
    if len(waits) > limit:
        lines.append(f"and {len(waits) - limit} more")
    return lines
