"""The page's charts: curves over updates, distributions, time by phase."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from deploy.records.reading import RunRecord
from deploy.report.arms import Arm
from deploy.report.curves import Curve
from deploy.report.measures import title
from deploy.report.svg import WIDE, Chart, colour, drawing, finish, readable

BARS_AT_MOST = 40
POINTS_OF_A_DISTRIBUTION = 300
PHASES = {
    "waiting for rollouts": "seconds/waiting_for_rollouts",
    "waiting for scores": "seconds/waiting_for_scores",
    "fetching groups": "update/seconds_fetch",
    "anchors": "update/seconds_anchors",
    "forward and backward": "update/seconds_backward",
    "optimizer step": "update/seconds_step",
}
"""Phase -> metric. What is left of an update's seconds is publishing, recording and checkpoints."""
REST = "publishing, records, the rest"

Array = NDArray[np.float64]


def curve_chart(arms: Sequence[Arm], name: str, curves: Mapping[int, Curve]) -> Chart:
    """Draw a metric of the arms that have it.

    Args:
        arms: all of them.
        name: of the metric.
        curves: arm's number -> its curve, at least one.
    """
    with drawing(name) as (figure, axes):
        for index, curve in curves.items():
            _draw_curve(axes, curve, colour(index), points=name.startswith("heldout/"))
        axes.set_xlabel("update")
        axes.margins(x=0.02)
        _fit_to_lines(axes, list(curves.values()))
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        series = [readable(arms[index].label, index, curve.updates, curve.mean) for index, curve in curves.items()]
        said = "; ".join(_course(arms[index].label, curve) for index, curve in curves.items())
        return finish(figure, axes, title(name), f"{title(name)} over updates. {said}.", "update", series)


def distribution_chart(key: str, words: str, values: Mapping[int, Array], labels: Sequence[str]) -> Chart:
    """Draw empirical distribution functions.

    Args:
        key: unique on the page.
        words: what is distributed.
        values: arm's number -> values of its groups, at least one.
        labels: of all arms.
    """
    with drawing(key, WIDE) as (figure, axes):
        series, said = [], []
        for index, unsorted in values.items():
            x = np.sort(unsorted)
            share = np.arange(1, len(x) + 1) / len(x)
            kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS_OF_A_DISTRIBUTION)).round().astype(int))
            axes.step(np.r_[x[0], x[kept]], np.r_[0.0, share[kept]], where="post", color=colour(index), linewidth=1.6)
            series.append(readable(labels[index], index, x, share))
            said.append(f"{labels[index]}: median {np.median(x):.4g}, {len(x)} groups")
        axes.set(xlabel=words, ylabel="share of groups at most", ylim=(0, 1.02))
        return finish(figure, axes, words.capitalize(), f"Distribution of {words}. {'; '.join(said)}.", "", series)


def phases_of(run: RunRecord) -> dict[str, Array]:
    """Return seconds ``[n]`` of a run's updates by phase, those that it logged; empty without a total."""
    total = run.metrics.get("seconds/update_total")
    if total is None:
        return {}
    phases = {phase: np.nan_to_num(run.metrics[name]) for phase, name in PHASES.items() if name in run.metrics}
    rest = np.nan_to_num(total) - sum(phases.values(), np.zeros(len(total)))
    return phases | {REST: np.maximum(rest, 0.0)}


def phase_chart(run: RunRecord, key: str, top: float) -> Chart | None:
    """Draw seconds of updates by phase as stacked bars; of many updates, means over neighbours.

    Args:
        run: whose.
        key: unique on the page.
        top: end of the y axis, seconds, the same for all runs.
    """
    phases = phases_of(run)
    if not phases:
        return None
    bins = np.array_split(np.arange(len(run.updates)), min(len(run.updates), BARS_AT_MOST))
    x = np.array([run.updates[bin_].mean() for bin_ in bins])
    widths = np.array([run.updates[bin_[-1]] - run.updates[bin_[0]] + 1 for bin_ in bins])
    with drawing(key) as (figure, axes):
        base, series = np.zeros(len(x)), []
        for number, phase in enumerate((*PHASES, REST)):
            if phase in phases:
                heights = np.array([phases[phase][bin_].mean() for bin_ in bins])
                axes.bar(x, heights, width=0.86 * widths, bottom=base, color=colour(number, 1), linewidth=0)
                series.append(readable(phase, number, x, heights, 1))
                base = base + heights
        axes.set(xlabel="update", ylabel="seconds", ylim=(0, top))
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        said = ", ".join(f"{phase} {values.mean():.2g} s" for phase, values in phases.items())
        return finish(figure, axes, run.name, f"Mean seconds of an update of {run.name}: {said}.", "update", series)


def _draw_curve(axes: Axes, curve: Curve, key: str, *, points: bool) -> None:
    trend = curve.trend
    shown = curve.mean if trend is None else trend
    if curve.half_width is not None:
        low, high = curve.mean - curve.half_width, curve.mean + curve.half_width
        axes.fill_between(curve.updates, low, high, color=key, alpha=0.16, linewidth=0)
    if trend is not None:
        axes.plot(curve.updates, curve.mean, color=key, alpha=0.35, linewidth=0.7)
    axes.plot(curve.updates, shown, color=key, linewidth=1.7, marker="o" if points else None, markersize=3.5)


def _fit_to_lines(axes: Axes, curves: Sequence[Curve]) -> None:
    """Keep the lines readable beside a band of two seeds, which is as wide as twelve standard errors."""
    bands = [
        side for c in curves if c.half_width is not None for side in (c.mean - c.half_width, c.mean + c.half_width)
    ]
    if not bands:
        return
    lines = np.concatenate([curve.mean for curve in curves])
    low, high = float(np.nanmin(lines)), float(np.nanmax(lines))
    room = 0.6 * (high - low) or 0.1 * abs(high) or 1.0
    everything = np.concatenate([lines, *bands])
    inner, outer = max(low - room, float(np.nanmin(everything))), min(high + room, float(np.nanmax(everything)))
    axes.set_ylim(inner - 0.05 * (outer - inner), outer + 0.05 * (outer - inner))


def _course(label: str, curve: Curve) -> str:
    there = curve.mean[np.isfinite(curve.mean)]
    return f"{label}: from {there[0]:.4g} to {there[-1]:.4g}, lowest {there.min():.4g}, highest {there.max():.4g}"
