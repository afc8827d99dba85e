"""A metric of an arm over the updates: its mean over the seeds, and how sure that is."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.records.reading import RunRecord
from deploy.report.arms import Arm
from rc_grpo.evaluation.intervals import half_width

SMOOTHED_ABOVE = 40
"""A curve of more points is drawn with a moving mean over a twentieth of it."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """A line with, for several seeds, a band.

    Attributes:
        updates: ``[n]``.
        mean: ``[n]``; NaN where there is none.
        half_width: ``[n]`` of the interval of the mean over seeds by Student's t; None for one seed.
    """

    updates: NDArray[np.int64]
    mean: Array
    half_width: Array | None

    @property
    def trend(self) -> Array | None:
        """The moving mean ``[n]`` of a long curve, cut at its ends; None for a short one."""
        if len(self.mean) <= SMOOTHED_ABOVE:
            return None
        ones = np.ones(len(self.mean) // 20 | 1)
        there = np.isfinite(self.mean)
        total = np.convolve(np.where(there, self.mean, 0.0), ones, mode="same")
        count = np.convolve(there.astype(np.float64), ones, mode="same")
        return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))


def curve_of(arm: Arm, name: str) -> Curve | None:
    """Return a metric's curve over the updates that all seeds have; None where they have none of it."""
    by_run = [_logged(run, name) for run in arm.runs]
    shared = sorted(set(by_run[0]).intersection(*by_run))
    values = np.array([[found[update] for update in shared] for found in by_run])
    if not np.isfinite(values).any():
        return None
    width = half_width(values) if len(values) > 1 else None
    return Curve(np.array(shared), values.mean(axis=0), width)


def _logged(run: RunRecord, name: str) -> dict[int, float]:
    if name in run.heldout:
        return run.heldout[name]
    if name not in run.metrics:
        return {}
    return dict(zip(run.updates.tolist(), run.metrics[name].tolist(), strict=True))
