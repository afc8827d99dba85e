"""Training by wall-clock: learning rate and end follow the seconds spent, whatever the machine's speed."""

import math
import time


class Clock:
    """A budget of seconds that starts when it is made: all of a training, or one sitting of it.

    Args:
        seconds: how long to train.
        spent: seconds of earlier sittings.
        total: seconds planned for all of them, by which the learning rate goes; by default this is the last.
    """

    def __init__(self, seconds: float, spent: float = 0.0, total: float | None = None) -> None:
        self._start = time.monotonic()
        self._seconds = seconds
        self._spent = spent
        self._total = spent + seconds if total is None else total

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._start

    @property
    def spent(self) -> float:
        """Seconds of training, earlier sittings' among them."""
        return self._spent + self.elapsed

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, at most 1."""
        return _share(self.elapsed, self._seconds)

    def learning_rate(self, peak: float, warmup: float = 0.03, floor: float = 0.01) -> float:
        """Return the rate of a linear warm-up to ``peak`` and a cosine decay to ``floor * peak``."""
        progress = _share(self.spent, self._total)
        if progress < warmup:
            return peak * (progress / warmup + 1e-2)
        cosine = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
        return peak * (floor + (1 - floor) * cosine)


def _share(spent: float, budget: float) -> float:
    return min(1.0, spent / budget) if budget > 0 else 1.0
