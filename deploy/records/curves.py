"""A run's metrics as columns, line by line as they were logged: of a run that is over, or of one that goes on."""

import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.records.metrics import is_metric

Array = NDArray[np.float64]

_LARGEST = 1e100
"""Of a measure. What is larger, or no number, is drawn as missing: axes and sums would overflow."""


class Curves:
    """What the lines of ``metrics.jsonl`` add up to; eight bytes a figure, so that a long run stays small."""

    def __init__(self) -> None:
        self._updates = array("q")
        self._columns: dict[str, array[float]] = {}
        self._heldout: dict[str, dict[int, float]] = {}

    def __len__(self) -> int:
        return len(self._updates)

    def add(self, line: Mapping[str, Any]) -> None:
        """Take a line of `deploy.records.metrics.parse_line`; of events that are neither, nothing is kept."""
        figures = {name: plain(value) for name, value in line.items() if is_metric(name)}
        if line.get("event") == "update":
            missing = [math.nan] * len(self._updates)
            for name in figures.keys() - self._columns.keys():
                self._columns[name] = array("d", missing)
            for name, column in self._columns.items():
                column.append(figures.get(name, math.nan))
            self._updates.append(line["update"])
        elif line.get("event") == "evaluation":
            for name, value in figures.items():
                if math.isfinite(value):
                    self._heldout.setdefault(name, {})[line["update"]] = value

    @property
    def updates(self) -> NDArray[np.int64]:
        """``[n]``, the updates made."""
        return np.array(self._updates, dtype=np.int64)

    def column(self, name: str) -> Array:
        """Return a metric ``[n]``; NaN where it was not logged."""
        return np.array(self._columns.get(name, [math.nan] * len(self._updates)), dtype=np.float64)

    @property
    def metrics(self) -> dict[str, Array]:
        """Name -> ``[n]``, by name; NaN where an update did not log it."""
        return {name: self.column(name) for name in sorted(self._columns)}

    @property
    def heldout(self) -> dict[str, dict[int, float]]:
        """Name -> update -> mean, as logged at evaluations; a single judge's reward is the task reward again."""
        judges = [name for name in self._heldout if name.startswith("heldout/reward/")]
        left_out = judges if len(judges) == 1 else []
        return {name: dict(values) for name, values in self._heldout.items() if name not in left_out}


def plain(value: float | None) -> float:
    """Return a measure as it is drawn; NaN for none and for what no axis could hold."""
    return float(value) if value is not None and abs(value) <= _LARGEST else math.nan
