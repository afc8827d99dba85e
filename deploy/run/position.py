"""Where a run is: what is done of what was planned, what of it is safe, and the time it took."""

import time


class Clock:
    """The time of training, over all processes that drove the run, and the pace of its updates."""

    def __init__(self) -> None:
        self.start()

    def start(self, earlier_seconds: float = 0.0) -> None:
        """Begin to count, after so many seconds that other processes have counted."""
        self._earlier_seconds = earlier_seconds
        self._started = self._mark = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on training so far."""
        return self._earlier_seconds + time.monotonic() - self._started

    def lap(self) -> float:
        """Return the seconds since this was last asked, or since the start."""
        before, self._mark = self._mark, time.monotonic()
        return self._mark - before


class Position:
    """A run's place in its plan.

    Args:
        planned: updates.
    """

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.done = 0
        """Updates made."""
        self.losses = 0
        """Times that the learner was lost since the last checkpoint."""
        self.saved: int | None = None
        """Updates behind the newest checkpoint; None before there is one."""
        self.finished = False
        self.clock = Clock()

    @property
    def left(self) -> range:
        """The updates still to be made, 0-based."""
        return range(self.done, self.planned)
