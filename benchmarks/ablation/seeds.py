"""Two arms under the same seeds: how much the one gains over the other, and whether chance would explain it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from benchmarks.ablation.statistics import Estimate, Trained, by_seed, gain


@dataclass(frozen=True)
class Difference:
    """The one arm's gain minus the other's, paired by seed.

    Attributes:
        name: of the quantity.
        one: name of the one arm.
        other: of the other.
        world: that both were trained in.
        estimate: mean over seeds, with its interval.
        p_value: of Student's paired t-test, two-sided.
        corrected: the same by Holm, for all comparisons that it stands among.
    """

    name: str
    one: str
    other: str
    world: str
    estimate: Estimate
    p_value: float
    corrected: float = 1.0

    @property
    def verdict(self) -> str:
        """``more``, ``less``, or ``even``: what the corrected test cannot tell from chance."""
        if self.corrected >= 0.05:
            return "even"
        return "more" if self.estimate.mean > 0 else "less"


def difference(
    arms: Mapping[str, Sequence[Trained]], one: str, other: str, world: str, name: str = "reward"
) -> Difference:
    """Compare two arms of a world in a held-out quantity's gain over the base model.

    Raises:
        ValueError: they have not the same seeds, or fewer than two.
    """
    gained = gain(name)
    differences = [gained(mine) - gained(theirs) for mine, theirs in by_seed(arms[one], arms[other])]
    if len(differences) < 2:
        raise ValueError(f"{one} and {other} have one seed or none in the world {world}: chance cannot be told")
    return Difference(name, one, other, world, Estimate.of(differences), float(_p_value(np.array(differences))))


def corrected(differences: Sequence[Difference]) -> list[Difference]:
    """Return all comparisons with Holm's correction for their number, in their order."""
    by_rank = sorted(range(len(differences)), key=lambda index: differences[index].p_value)
    found, highest = list(differences), 0.0
    for rank, index in enumerate(by_rank):
        highest = max(highest, min(1.0, (len(differences) - rank) * differences[index].p_value))
        found[index] = replace(differences[index], corrected=highest)
    return found


def _p_value(differences: np.ndarray) -> float:
    # Equal arms differ by nothing under every seed: there is no spread to test by.
    return 1.0 if not differences.any() else float(stats.ttest_1samp(differences, 0.0).pvalue)
