"""An asyncio event loop on virtual time: a sleep takes no time, and an hour of a cluster passes in seconds.

When nothing is ready the clock jumps to the next timer. What happens at which moment is then a function of the program
alone, whatever else the machine is doing, so that a simulation gives the same numbers every time and everywhere.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class DeadlockError(RuntimeError):
    """Everything waits, and nothing is scheduled that could end it."""


class _JumpingSelector(selectors.SelectSelector):
    """Where a loop would sleep until its next timer, the clock goes there instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise DeadlockError(
                f"at {self.now:g} virtual seconds everything waits and no timer is set: something awaits a future that "
                "nobody completes, or a thread or socket, which virtual time does not wait for"
            )
        self.now += max(0.0, timeout)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose `time` starts at 0 and moves only when everything waits for a timer."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Return the virtual seconds since the loop was made."""
        return self._clock.now


def run(program: Coroutine[Any, Any, Result]) -> Result:
    """Run a program to its end on a loop of its own, as `asyncio.run` does.

    Raises:
        DeadlockError: the program waits for something that cannot happen.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(program)
