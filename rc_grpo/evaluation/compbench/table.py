"""From samples to the benchmark's table: a mean for each family, and the unweighted mean of the families.

A sample without an edit, or one that could not be measured, is in no mean: it is listed. A benchmark that is not whole
says so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rc_grpo.data.formats.compbench import FAMILIES
from rc_grpo.evaluation.compbench.measuring import Measured
from rc_grpo.evaluation.compbench.scores import METRICS, Scores

Kind = Literal["official", "corrected"]
KINDS: tuple[Kind, ...] = ("official", "corrected")
_DECIMALS = 3


@dataclass(frozen=True)
class Means:
    """Means of some samples.

    Attributes:
        expected: samples that the benchmark has.
        measured: samples that the means are of.
        official: as the script rounds them, to 3 decimals.
        corrected: unrounded.
    """

    expected: int
    measured: int
    official: Scores
    corrected: Scores

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "expected": self.expected,
            "measured": self.measured,
            "official": self.official.as_json(),
            "corrected": self.corrected.as_json(),
        }


@dataclass(frozen=True)
class Table:
    """The benchmark's result.

    Attributes:
        families: in the benchmark's order, those that the data have.
        overall: the unweighted mean over the families that have a measured sample.
        missing: sample -> why there is no edit of it.
        failed: sample -> why its edit could not be measured.
    """

    families: Mapping[str, Means]
    overall: Means
    missing: Mapping[str, str]
    failed: Mapping[str, str]

    @property
    def whole(self) -> bool:
        """All three families are there and every sample of them was measured."""
        return set(self.families) == set(FAMILIES) and self.overall.expected == self.overall.measured

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "whole": self.whole,
            "overall": self.overall.as_json(),
            "families": {name: means.as_json() for name, means in self.families.items()},
            "missing": dict(self.missing),
            "failed": dict(self.failed),
        }

    def rows(self) -> Iterator[tuple[str, ...]]:
        """Yield the table's cells: family, samples, kind of metric, then a number for each of `METRICS`."""
        for name, means in [*self.families.items(), ("overall", self.overall)]:
            for kind in KINDS:
                scores = means.official if kind == "official" else means.corrected
                cells = (cell(value) for value in scores.as_dict().values())
                yield name, f"{means.measured}/{means.expected}", kind, *cells

    def markdown(self) -> str:
        """Return the table in Markdown."""
        header = ("family", "measured", "metrics", *METRICS.values())
        lines = [header, ("---",) * len(header), *self.rows()]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def tabulate(
    samples: Mapping[str, Sequence[str]],
    measured: Mapping[str, Measured],
    missing: Mapping[str, str],
    failed: Mapping[str, str],
) -> Table:
    """Aggregate.

    Args:
        samples: family -> ids of its samples.
        measured: sample -> what was measured of it; what is not among ``samples`` is left out.
        missing: sample -> why there is no edit.
        failed: sample -> why its edit could not be measured.

    Raises:
        ValueError: a sample is in none of the three, or in two of them.
    """
    for name in (name for names in samples.values() for name in names):
        if sum(name in place for place in (measured, missing, failed)) != 1:
            raise ValueError(f"sample {name!r} must be one of measured, missing and failed")
    families = {
        family: _of_family([measured[name] for name in samples[family] if name in measured], len(samples[family]))
        for family in FAMILIES
        if samples.get(family)
    }
    # As in the script, a family of which nothing was measured has no row to average.
    counted = [means for means in families.values() if means.measured]
    overall = Means(
        sum(means.expected for means in families.values()),
        sum(means.measured for means in families.values()),
        _rounded(_mean([means.official for means in counted])),
        _mean([means.corrected for means in counted]),
    )
    return Table(families, overall, missing, failed)


def cell(value: float) -> str:
    """Return a number for a table."""
    return "–" if math.isnan(value) else f"{value:.{_DECIMALS}f}"


def _of_family(measured: Sequence[Measured], expected: int) -> Means:
    return Means(
        expected,
        len(measured),
        _rounded(_mean([sample.official for sample in measured])),
        _mean([sample.corrected for sample in measured]),
    )


def _mean(scores: Sequence[Scores]) -> Scores:
    """Return the mean of what there is of each metric; an infinite value makes it infinite, as in the script."""
    columns = {name: [getattr(item, name) for item in scores] for name in METRICS}
    there = {name: [value for value in values if not math.isnan(value)] for name, values in columns.items()}
    return Scores(**{name: float(np.mean(values)) if values else math.nan for name, values in there.items()})


def _rounded(scores: Scores) -> Scores:
    """Round with numpy's own rule, which the script's ``round`` of a numpy number is; Python's differs in rare ties."""
    return Scores(**{name: float(np.round(value, _DECIMALS)) for name, value in scores.as_dict().items()})
