"""Charts that belong together: curves by section, and the time by phase."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deploy.records.reading import RunRecord
from deploy.report.arms import Arm
from deploy.report.charts import PHASES, REST, curve_chart, phase_chart, phases_of
from deploy.report.curves import curve_of
from deploy.report.measures import sections, title
from deploy.report.svg import Chart


@dataclass(frozen=True, eq=False)
class Section:
    """Curves that belong together.

    Attributes:
        name: above them.
        charts: of what changed.
        constants: title -> value of what was the same at every update of every run.
    """

    name: str
    charts: tuple[Chart, ...]
    constants: dict[str, float]


@dataclass(frozen=True, eq=False)
class Phases:
    """Where the time went.

    Attributes:
        charts: of the runs that logged it.
        legend: the phases: number of the colour, and name.
        runs: names of those runs.
        rows: phase -> mean seconds in each of the runs; NaN where a run did not log it.
    """

    charts: tuple[Chart, ...]
    legend: tuple[tuple[int, str], ...]
    runs: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


def curve_sections(runs: Sequence[RunRecord], arms: Sequence[Arm]) -> list[Section]:
    """Draw whatever runs logged, by sections; what was the same throughout is said as a number."""
    found = []
    for section, names in sections({name for run in runs for name in (*run.metrics, *run.heldout)}):
        charts, constants = [], {}
        for name in names:
            curves = {index: curve for index, arm in enumerate(arms) if (curve := curve_of(arm, name)) is not None}
            values = np.unique(np.concatenate([curve.mean for curve in curves.values()] or [np.empty(0)]))
            values = values[np.isfinite(values)]
            if len(values) == 1:
                constants[title(name)] = float(values[0])
            elif len(values):
                charts.append(curve_chart(arms, name, curves))
        if charts or constants:
            found.append(Section(section, tuple(charts), constants))
    return found


def time_by_phase(runs: Sequence[RunRecord]) -> Phases:
    """Draw where the time of runs went; of those that did not log it, nothing."""
    timed = {run.name: phases for run in runs if (phases := phases_of(run))}
    top = 1.04 * max((float(np.sum(list(phases.values()), axis=0).max()) for phases in timed.values()), default=1.0)
    charts = (phase_chart(run, f"phases/{run.name}", top) for run in runs)
    legend = [(index, phase) for index, phase in enumerate((*PHASES, REST)) if any(phase in p for p in timed.values())]
    rows = {
        phase: tuple(float(phases[phase].mean()) if phase in phases else np.nan for phases in timed.values())
        for _, phase in legend
    }
    return Phases(tuple(chart for chart in charts if chart is not None), tuple(legend), tuple(timed), rows)
