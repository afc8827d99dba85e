"""What ranks measure of an update: each figure knows how it is merged over steps, groups and ranks."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Figures:
    """Measured numbers by name.

    Attributes:
        maxima: of several, the largest stands.
        means: of several, their mean does.
    """

    maxima: Mapping[str, float] = field(default_factory=dict)
    means: Mapping[str, float] = field(default_factory=dict)

    def under(self, prefix: str) -> "Figures":
        """Return them by the names ``prefix/NAME``."""
        kinds = self.maxima, self.means
        return Figures(*({f"{prefix}/{name}": value for name, value in kind.items()} for kind in kinds))

    def __or__(self, others: "Figures") -> "Figures":
        """Return these and the others."""
        return Figures({**self.maxima, **others.maxima}, {**self.means, **others.means})


class Statistics:
    """Maxima and means over steps and groups, kept on the device until asked for."""

    def __init__(self) -> None:
        self._maxima: dict[str, list[Tensor]] = defaultdict(list)
        self._means: dict[str, list[Tensor]] = defaultdict(list)

    def maximum(self, name: str, value: Tensor) -> None:
        """Add a value of which the maximum is reported."""
        self._maxima[name].append(value.detach().float())

    def mean(self, name: str, value: Tensor) -> None:
        """Add a value of which the mean is reported."""
        self._means[name].append(value.detach().float())

    def add(self, others: "Statistics") -> None:
        """Add all values of others."""
        for own, more in ((self._maxima, others._maxima), (self._means, others._means)):
            for name, values in more.items():
                own[name] += values

    def not_finite(self, *names: str) -> list[str]:
        """Return those of the named means that hold a NaN or an infinity; the device is waited for."""
        return [name for name in names if not all(torch.stack(self._means[name]).isfinite().tolist())]

    def result(self) -> Figures:
        """Return every statistic by name."""
        return Figures(
            {name: float(torch.stack(values).max()) for name, values in self._maxima.items()},
            {name: float(torch.stack(values).mean()) for name, values in self._means.items()},
        )


def merge(results: Sequence[Figures]) -> dict[str, float]:
    """Merge the figures of several ranks: each name over the ranks that have it."""
    maxima = _gathered([result.maxima for result in results])
    means = _gathered([result.means for result in results])
    merged = {name: max(values) for name, values in maxima.items()}
    merged |= {name: sum(values) / len(values) for name, values in means.items()}
    return dict(sorted(merged.items()))


def _gathered(results: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    gathered: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for name, value in result.items():
            gathered[name].append(value)
    return gathered
