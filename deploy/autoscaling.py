"""When a pool grows and shrinks by itself: it grows while the learner waits for it, and gives up what stands idle."""

import math

from rc_grpo.config import AutoscaleConfig


def wanted_workers(size: int, waited: float, busy: float, config: AutoscaleConfig) -> int:
    """Return how many workers a pool should have after an update.

    It grows by the share in which the learner waited for it: a learner that waits half of its time wants half as many
    workers again. It gives up one worker at a time, once the others could have done all that was done.

    Args:
        size: workers it is meant to have now.
        waited: share of the update's time in which the learner waited for this pool, 0..1.
        busy: share of its workers' time in which they had work, 0..1.
        config: bounds and thresholds.
    """
    wanted = size
    if waited > config.grow_above:
        wanted = size + max(1, math.floor(size * waited))
    elif size * (1.0 - busy) > 1.0 + config.spare:
        wanted = size - 1
    return min(config.max_workers, max(config.min_workers, wanted))
