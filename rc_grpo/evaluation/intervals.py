"""How sure a share or a mean is: Wilson's and Student's intervals, a bootstrap over participants, a sign test."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, t

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
    interval = binomtest(won, of).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


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


def half_width(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return that of the interval of the mean over the first axis, of two or more, by Student's t."""
    count = len(values)
    error = values.std(axis=0, ddof=1) / np.sqrt(count)
    return np.asarray(t.ppf((1 + LEVEL) / 2, count - 1) * error)


def sign_test(wins: int, losses: int) -> float | None:
    """Return the exact two-sided probability of a split at least as uneven if both were equally good."""
    votes = wins + losses
    if votes == 0:
        return None
    return float(binomtest(wins, votes).pvalue)


def _resampled(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums ``[RESAMPLES]`` of resampled participants; the same ones at every call."""
    rng = np.random.default_rng(derive("study", "bootstrap"))
    times = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=RESAMPLES)
    return np.asarray(times @ counts)
