"""From the runs' lines to numbers with intervals."""

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rc_grpo.evaluation.intervals import half_width

Array = NDArray[np.float64]
CPU = "CPU"


@dataclass(frozen=True)
class Trained:
    """What one run left.

    Attributes:
        part: of the plan.
        arm: its name.
        seed: of the run.
        updates: its lines of updates.
        heldout: held-out values by task, by update and name.
        card: it was made on, or ``CPU``.
        card_share: of the card's time that was its own.
    """

    part: str
    arm: str
    seed: int
    updates: list[dict[str, Any]] = field(default_factory=list)
    heldout: dict[int, dict[str, Array]] = field(default_factory=dict)
    card: str = CPU
    card_share: float = 1.0

    def series(self, name: str) -> Array:
        """Return a training quantity ``[updates, groups]``."""
        return np.array([line[name] for line in self.updates], dtype=np.float64)

    def first(self, name: str) -> Array:
        """Return a held-out quantity of the base model, by task."""
        return self.heldout[0][name]

    def last(self, name: str) -> Array:
        """Return a held-out quantity after the last update, by task."""
        return self.heldout[max(self.heldout)][name]


def read(folder: Path) -> list[Trained]:
    """Read all finished runs of a folder; those that are kept in the repository are compressed.

    Raises:
        ValueError: there are none.
    """
    runs = []
    for path in sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]):
        written = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        head, *lines = (json.loads(line) for line in written.splitlines())
        runs.append(
            Trained(
                head["part"],
                head["arm"],
                head["seed"],
                [line for line in lines if "heldout" not in line],
                {
                    line["update"]: {name: np.array(values) for name, values in line["heldout"].items()}
                    for line in lines
                    if "heldout" in line
                },
                head.get("card", CPU),
                head.get("card_share", 1.0),
            )
        )
    if not runs:
        raise ValueError(f"{folder} holds no finished run; make some by: python -m benchmarks.ablation train")
    return runs


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with the half-width of its 95 % interval (Student's t); NaN for a single seed."""

    mean: float
    half_width: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Estimate from one value a seed."""
        array, count = np.array(values, dtype=np.float64), len(values)
        if count < 2:
            return cls(float(array.mean()), float("nan"), count)
        return cls(float(array.mean()), float(half_width(array)), count)

    @property
    def excludes_loss(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.mean - self.half_width > 0

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.half_width:.4f}"


def over_seeds(runs: Sequence[Trained], value: Callable[[Trained], float]) -> Estimate:
    """Estimate a quantity of runs that differ in their seed."""
    return Estimate.of([value(run) for run in runs])


def gain(name: str) -> Callable[[Trained], float]:
    """Return the mean held-out change of a quantity from the base model to the end of a run, on the same tasks."""
    return lambda run: float(np.mean(run.last(name) - run.first(name)))


@dataclass(frozen=True)
class Compared:
    """Groups of two arms under the same seeds and tasks.

    Attributes:
        median: of the one.
        other_median: of the other.
        ratio: of the medians.
        p_value: of Wilcoxon's signed-rank test of the pairs.
        pairs: their number.
    """

    median: float
    other_median: float
    ratio: float
    p_value: float
    pairs: int


def of_all_groups(runs: Sequence[Trained], name: str) -> Array:
    """Return a training quantity of every group ``[runs * updates * groups]``, run by run."""
    return np.concatenate([run.series(name).ravel() for run in runs])


def paired(one: Array, other: Array) -> Compared:
    """Compare two quantities of the same groups."""
    medians = float(np.median(one)), float(np.median(other))
    return Compared(*medians, medians[0] / medians[1], float(stats.wilcoxon(one, other).pvalue), len(one))


def by_seed(one: Sequence[Trained], other: Sequence[Trained]) -> list[tuple[Trained, Trained]]:
    """Return the runs of two arms in pairs of one seed, in the seeds' order.

    Raises:
        ValueError: they have not the same seeds.
    """
    mine, theirs = ({run.seed: run for run in runs} for runs in (one, other))
    if mine.keys() != theirs.keys():
        raise ValueError(f"arms of different seeds cannot be paired: {sorted(mine)} and {sorted(theirs)}")
    return [(mine[seed], theirs[seed]) for seed in sorted(mine)]


def compare(one: Sequence[Trained], other: Sequence[Trained], name: str) -> Compared:
    """Compare a quantity of training groups between two arms, pair by pair.

    Raises:
        ValueError: they have not the same seeds.
    """
    mine, theirs = zip(*by_seed(one, other), strict=True)
    return paired(of_all_groups(mine, name), of_all_groups(theirs, name))
