"""How alike two judges are about the same edits: one way of asking a judge against another."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rc_grpo.evaluation.compbench.scores import plain


@dataclass
class Opinions:
    """What one judge made of pairs of edits.

    Attributes:
        rewards: of the edits of each source, by what names the source, NaN where it failed; empty where a reward means
            something within its pair alone.
        differences: reward of the first of a pair less that of the second, by what names the pair.
    """

    rewards: dict[str, tuple[float, ...]] = field(default_factory=dict)
    differences: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Likeness:
    """How alike two judges are. NaN where nothing tells.

    Attributes:
        images: edits that both scored.
        spearman: rank correlation of their rewards over those.
        within: mean rank correlation among the edits of one source, over sources that tell one.
        difference: mean absolute difference of rewards.
        pairs: that both scored.
        preferences: share of those of which both said the same, a tie being one of three answers.
    """

    images: int
    spearman: float
    within: float
    difference: float
    pairs: int
    preferences: float

    def as_json(self) -> dict[str, Any]:
        """Return plain values for strict JSON; None for NaN."""
        return {name: plain(value) if isinstance(value, float) else value for name, value in asdict(self).items()}


def likeness(one: Opinions, other: Opinions, margin: float = 0.0) -> Likeness:
    """Compare two judges about what both were asked; rewards that differ by no more than the margin are a tie."""
    groups = [
        [(a, b) for a, b in zip(rewards, other.rewards.get(source, ()), strict=False) if math.isfinite(a + b)]
        for source, rewards in one.rewards.items()
    ]
    every = [pair for group in groups for pair in group]
    within = [value for group in groups if not math.isnan(value := _of_pairs(group))]
    both = [(said, other.differences.get(pair, math.nan)) for pair, said in one.differences.items()]
    same = [_preferred(a, margin) == _preferred(b, margin) for a, b in both if math.isfinite(a + b)]
    return Likeness(
        images=len(every),
        spearman=_of_pairs(every),
        within=_mean(within),
        difference=_mean([abs(a - b) for a, b in every]),
        pairs=len(same),
        preferences=_mean(same),
    )


def _preferred(difference: float, margin: float) -> int:
    return 0 if abs(difference) <= margin else int(math.copysign(1, difference))


def spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the rank correlation of two rows ``[N]``; ties share their mean rank. NaN where a row does not vary."""
    return correlation(_ranks(one), _ranks(other))


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of two rows ``[N]``; NaN where one of them does not vary."""
    if len(one) < 2 or one.std() == 0 or other.std() == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places])


def _of_pairs(pairs: Sequence[tuple[float, float]]) -> float:
    return spearman(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def compared(opinions: Mapping[str, Opinions], margin: float) -> dict[str, Likeness]:
    """Compare each two of several judges, by both names, such as ``text/logits``."""
    names = list(opinions)
    return {
        f"{one}/{other}": likeness(opinions[one], opinions[other], margin)
        for place, one in enumerate(names)
        for other in names[place + 1 :]
    }
