"""When a pool grows and shrinks by itself: it grows while the learner waits for it, and gives up what stands idle."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from rc_grpo.config import AutoscaleConfig
from rc_grpo.pool import WorkerPool


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


def autoscale(pools: Mapping[str, WorkerPool[Any]], metrics: Mapping[str, float], say: Callable[[str], object]) -> None:
    """Resize the pools that may resize themselves, by what an update's metrics say of them, and say so."""
    for role, pool in pools.items():
        if pool.autoscale is None:
            continue
        waited = metrics.get(f"seconds/waiting_for_{'rollouts' if role == 'rollout' else 'scores'}", 0.0)
        share = waited / max(metrics["seconds/update_total"], 1e-9)
        wanted = wanted_workers(pool.size, share, metrics[f"pool/{role}_busy_share"], pool.autoscale)
        if wanted != pool.size:
            say(f"{role}: {pool.size} -> {wanted} workers (the learner waited {share:.0%})")
            pool.resize(wanted)
