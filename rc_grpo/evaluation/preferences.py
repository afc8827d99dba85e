"""How often a judge prefers what people prefer."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rc_grpo.evaluation.compbench.scores import plain


@dataclass(frozen=True)
class Compared:
    """One comparison, by people and by a judge.

    Attributes:
        human: 1 where people preferred the first, -1 the second, 0 neither.
        difference: the judge's reward of the first less that of the second; NaN where it scored one of them not.
        group: the same for all comparisons of one source and instruction.
    """

    human: int
    difference: float
    group: str = ""


@dataclass(frozen=True)
class Agreement:
    """What a judge's preferences come to. Shares are of pairs that it scored; NaN where there is none.

    Attributes:
        pairs: comparisons, failed ones included.
        failed: comparisons of which the judge scored one edit not.
        accuracy: share in which the judge said what people said, a tie being one of three answers.
        accuracy_without_ties: the same among pairs of which people preferred one; a tie of the judge is wrong.
        human_ties: share of pairs of which people preferred neither.
        judge_ties: share of pairs whose rewards differ by no more than the margin.
        best_accuracy: accuracy at the margin that suits these pairs best (arXiv 2305.14324): what a margin can bring.
        best_margin: that margin.
        groups: sources with several comparisons, all of them scored.
        group_accuracy: share of those in which every comparison is right.
    """

    pairs: int
    failed: int
    accuracy: float
    accuracy_without_ties: float
    human_ties: float
    judge_ties: float
    best_accuracy: float
    best_margin: float
    groups: int
    group_accuracy: float

    def as_json(self) -> dict[str, Any]:
        """Return plain values for strict JSON; None for NaN."""
        return {name: plain(value) if isinstance(value, float) else value for name, value in asdict(self).items()}


def agreement(compared: Sequence[Compared], margin: float = 0.0) -> Agreement:
    """Compare a judge's preferences with people's.

    Args:
        compared: the comparisons.
        margin: rewards that differ by no more are a tie.
    """
    scored = [pair for pair in compared if math.isfinite(pair.difference)]
    decided = [pair for pair in scored if pair.human != 0]
    best, best_margin = _best(scored)
    groups = [pairs for pairs in _groups(compared) if all(math.isfinite(pair.difference) for pair in pairs)]
    return Agreement(
        pairs=len(compared),
        failed=len(compared) - len(scored),
        accuracy=_share([_is_right(pair, margin) for pair in scored]),
        accuracy_without_ties=_share([_is_right(pair, margin) for pair in decided]),
        human_ties=_share([pair.human == 0 for pair in scored]),
        judge_ties=_share([abs(pair.difference) <= margin for pair in scored]),
        best_accuracy=best,
        best_margin=best_margin,
        groups=len(groups),
        group_accuracy=_share([all(_is_right(pair, margin) for pair in pairs) for pairs in groups]),
    )


def _is_right(pair: Compared, margin: float) -> bool:
    tied = abs(pair.difference) <= margin
    return pair.human == 0 if tied else pair.human * pair.difference > 0


def _best(scored: Sequence[Compared]) -> tuple[float, float]:
    """Return the best accuracy over all margins, and the smallest margin that has it; from none at all upwards."""
    if not scored:
        return math.nan, math.nan
    # Below every difference: nothing is a tie but equal rewards, which no margin tells apart.
    right = sum(_is_right(pair, 0.0) for pair in scored)
    best, margin = right, 0.0
    ordered = sorted((pair for pair in scored if pair.difference != 0), key=lambda pair: abs(pair.difference))
    for place, pair in enumerate(ordered):
        right += (pair.human == 0) - (pair.human * pair.difference > 0)
        alike = place + 1 < len(ordered) and abs(ordered[place + 1].difference) == abs(pair.difference)
        if right > best and not alike:
            best, margin = right, abs(pair.difference)
    return best / len(scored), margin


def _groups(compared: Sequence[Compared]) -> list[list[Compared]]:
    found: dict[str, list[Compared]] = defaultdict(list)
    for pair in compared:
        found[pair.group].append(pair)
    return [pairs for group, pairs in found.items() if group and len(pairs) > 1]


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right) if right else math.nan
