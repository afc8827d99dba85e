"""How a run ends before its plan does: it is asked to, or a guard has seen enough.

A stop that is asked for, by SIGTERM (`ray job stop`, a cluster that shrinks) or Ctrl-C, ends a run in good order.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")
SIGNALS = (signal.SIGTERM, signal.SIGINT)
EXIT_CODE = 128 + signal.SIGTERM


class RunStoppedError(Exception):
    """The run was asked to stop, and did; the message says how to go on."""


class GuardError(RuntimeError):
    """A guard ended the run; the message says why, and the way out."""


class RunawayError(GuardError):
    """The policy itself went wrong: its last update is not to be kept."""


class Stop:
    """Whether a run is to stop. Waits that may be given up for it go through `unless_asked`."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._bound: Callable[[], object] = lambda: None

    def ask(self) -> bool:
        """Ask, as the first signal does; return whether nobody had. The deadline runs while signals are listened to."""
        if self.asked.is_set():
            return False
        self.asked.set()
        self._bound()
        return True

    @contextmanager
    def on_signals(self, deadline_s: float) -> Iterator[None]:
        """Listen to signals inside the block: the first asks, a second one or the deadline cancels the current task."""
        loop, running = asyncio.get_running_loop(), asyncio.current_task()
        assert running is not None
        limits: list[asyncio.TimerHandle] = []

        def heard() -> None:
            if not self.ask():
                running.cancel()

        self._bound = lambda: limits.append(loop.call_later(deadline_s, running.cancel))

        for number in SIGNALS:
            loop.add_signal_handler(number, heard)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            for limit in limits:
                limit.cancel()

    async def unless_asked(self, work: Awaitable[Result]) -> Result:
        """Await something that may be given up.

        Raises:
            RunStoppedError: a stop was asked for first.
        """
        task, asked = asyncio.ensure_future(work), asyncio.ensure_future(self.asked.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise RunStoppedError
            return task.result()
        finally:
            asked.cancel()
            task.cancel()
            await asyncio.gather(task, asked, return_exceptions=True)
