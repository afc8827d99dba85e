"""Training by wall-clock: learning rate and end follow the seconds spent, whatever the machine's speed."""

import math
import time


class Clock:
    """A budget of seconds that starts when it is made.

    Args:
        seconds: how long to train.
    """

    def __init__(self, seconds: float) -> None:
        self._start = time.monotonic()
        self._seconds = seconds

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, at most 1."""
        return min(1.0, (time.monotonic() - self._start) / self._seconds) if self._seconds > 0 else 1.0

    def learning_rate(self, peak: float, warmup: float = 0.03, floor: float = 0.01) -> float:
        """Return the rate of a linear warm-up to ``peak`` and a cosine decay to ``floor * peak``."""
        progress = self.progress
        if progress < warmup:
            return peak * (progress / warmup + 1e-2)
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        return peak * (floor + (1 - floor) * cosine)
