"""How sure a share is: Wilson's interval, a bootstrap over participants, and the exact sign test."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rc_grpo.seeds import derive

LEVEL = 0.95
RESAMPLES = 10_000
FEW = 10
"""With fewer clusters a bootstrap's intervals are too narrow more often than they claim."""

Interval = tuple[float, float]


def wilson(won: int, of: int) -> Interval | None:
    """Return Wilson's interval of a share whose votes are independent; None without votes."""
    if of == 0:
        return None
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    share, spread = won / of, z * z / of
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / of + spread / of / 4)
    # At no and all votes won the formula's end is exactly 0 and 1, but for rounding.
    low = 0.0 if won == 0 else (middle - half) / (1 + spread)
    high = 1.0 if won == of else (middle + half) / (1 + spread)
    return low, high


def over_participants(won: Sequence[int], of: Sequence[int]) -> Interval | None:
    """Return the percentile interval of a share when participants are drawn again, each with all of their votes.

    The votes of one participant are alike; taken as independent they would claim more than they know.

    Args:
        won: of each participant.
        of: of each participant; some may be 0.
    """
    if sum(of) == 0:
        return None
    numerators, denominators = (_resampled(np.asarray(counts, np.int64)) for counts in (won, of))
    some = denominators > 0
    low, high = np.quantile(numerators[some] / denominators[some], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def share_interval(won: Sequence[int], of: Sequence[int]) -> Interval | None:
    """Return the interval of ``sum(won) / sum(of)``: over participants if there are several, Wilson's for one."""
    return over_participants(won, of) if len(of) > 1 else wilson(sum(won), sum(of))


def sign_test(wins: int, losses: int) -> float | None:
    """Return the exact two-sided probability of a split at least as uneven if both were equally good."""
    votes = wins + losses
    if votes == 0:
        return None
    ways = tail = 1
    for count in range(min(wins, losses)):
        ways = ways * (votes - count) // (count + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**votes))


def _resampled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums ``[RESAMPLES]`` of resampled participants; the same ones at every call."""
    rng = np.random.default_rng(derive("study", "bootstrap"))
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    return np.asarray(times @ counts)
