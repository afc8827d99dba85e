"""``rc-grpo report``: from runs' folders to one page."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deploy.outputs import check_file
from deploy.records.reading import RunRecord, read_runs
from deploy.report.arms import Arm, arms_of, differences
from deploy.report.charts import PHASES, REST, curve_chart, distribution_chart, phase_chart, phases_of
from deploy.report.curves import SMOOTHED_ABOVE, curve_of
from deploy.report.distributions import GroupNote, notes_of
from deploy.report.groups import LAST_UPDATES, Gallery, gallery
from deploy.report.heldout import COMPBENCH, Change, benchmark_rows, changes
from deploy.report.measures import sections, title
from deploy.report.summary import summaries
from deploy.report.svg import Chart, variable
from rc_grpo.durable import write_whole
from rc_grpo.evaluation import alarm, paper
from rc_grpo.evaluation.intervals import LEVEL
from rc_grpo.evaluation.scores import METRICS
from rc_grpo.evaluation.table import cell

GROUPS_AT_MOST = 24
"""On the whole page, shared by the runs, so that the page stays of a size that opens at once."""
GROUPS_A_RUN = 3
"""Of the best, and of the worst."""
QUANTILES = (0.1, 0.5, 0.9)
DISTRIBUTIONS = {"drift": "background drift of a group", "spread": "spread of reward within a group"}
"""Attribute of `GroupNote` -> words."""


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
class Distribution:
    """How a quantity of the training groups is distributed.

    Attributes:
        chart: the distribution functions.
        rows: arm's number and label, how many groups, and the `QUANTILES`.
    """

    chart: Chart
    rows: tuple[tuple[int, str, int, tuple[float, ...]], ...]


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


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write the page of some runs to a file, whole or not at all.

    Raises:
        ValueError: a folder is no run's, a run has not made an update yet, or ``out`` cannot be written.
    """
    check_file(out, "--out", example="report.html")
    write_whole(out, render(read_runs(folders)))


def render(runs: Sequence[RunRecord]) -> str:
    """Return the page of runs: HTML that loads nothing."""
    arms = arms_of(runs)
    notes = {run.name: notes_of(run) for run in runs}
    held_out, differing = changes(arms), differences(runs)
    context: dict[str, Any] = {
        "title": ", ".join(arm.label for arm in arms),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs": runs,
        "arms": arms,
        "summaries": summaries(runs, arms, differing, held_out),
        "sections": _sections(runs, arms),
        "distributions": _distributions(arms, notes),
        "quantiles": QUANTILES,
        "held_out": held_out,
        "benchmark": benchmark_rows(runs),
        "galleries": _galleries(runs, notes),
        "last_updates": LAST_UPDATES,
        "differences": differing,
        "phases": _phases(runs),
        "metrics": METRICS,
        "paper": paper,
        "compbench": COMPBENCH,
        "confidence": LEVEL,
        "smoothed_above": SMOOTHED_ABOVE,
        "long": any(len(run.updates) > SMOOTHED_ABOVE for run in runs),
        "alarm": alarm,
    }
    environment = _environment()
    script = environment.get_template("report.js").render()
    context |= {"script": Markup(script), "script_hash": _hash(script)}
    return environment.get_template("report.html.j2").render(context)


def _hash(script: str) -> str:
    """Return how a content security policy names the one script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def number(value: float, digits: int = 4) -> str:
    """Return a number for a table; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:#.{digits}g}".removesuffix(".")


def apart(values: tuple[float, float]) -> str:
    """Return two numbers with an arrow between, with as many digits as it takes to see them differ, at most ten."""
    before, after = values
    if math.isfinite(before) and math.isfinite(after) and before != after:
        digits = 1 + math.ceil(math.log10(max(abs(before), abs(after)) / abs(after - before)))
        digits = min(10, max(4, digits))
        return f"{number(before, digits)} → {number(after, digits)}"
    return f"{number(before)} → {number(after)}"


def minus(text: str) -> str:
    """Return a number's text with a minus sign that is as wide as its plus."""
    return text.replace("-", "−", 1) if text.startswith("-") else text


def difference(change: Change) -> str:
    """Return a difference with its sign, to the second digit of its standard error."""
    if not change.error > 0:
        return f"{change.difference:+.4g}"
    return f"{change.difference:+.{max(0, 1 - math.floor(math.log10(change.error)))}f}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("deploy.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "difference": difference,
        "cell": cell,
        "measure": title,
        "minus": minus,
        "apart": apart,
    }
    environment.globals |= {"variable": variable}
    return environment


def _sections(runs: Sequence[RunRecord], arms: Sequence[Arm]) -> list[Section]:
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


def _distributions(arms: Sequence[Arm], notes: Mapping[str, Sequence[GroupNote]]) -> list[Distribution]:
    found = []
    labels = [arm.label for arm in arms]
    for attribute, words in DISTRIBUTIONS.items():
        by_arm = {
            index: np.array([getattr(note, attribute) for run in arm.runs for note in notes[run.name]])
            for index, arm in enumerate(arms)
        }
        values = {index: there for index, array in by_arm.items() if len(there := array[np.isfinite(array)])}
        if values:
            rows = (
                (index, labels[index], len(array), tuple(np.quantile(array, QUANTILES).tolist()))
                for index, array in values.items()
            )
            chart = distribution_chart(f"distribution/{attribute}", words, values, labels)
            found.append(Distribution(chart, tuple(rows)))
    return found


def _galleries(runs: Sequence[RunRecord], notes: Mapping[str, Sequence[GroupNote]]) -> list[Gallery]:
    each = max(1, min(GROUPS_A_RUN, GROUPS_AT_MOST // (2 * len(runs))))
    return [gallery(run, notes[run.name], each) for run in runs]


def _phases(runs: Sequence[RunRecord]) -> Phases:
    timed = {run.name: phases for run in runs if (phases := phases_of(run))}
    top = 1.04 * max((float(np.sum(list(phases.values()), axis=0).max()) for phases in timed.values()), default=1.0)
    charts = (phase_chart(run, f"phases/{run.name}", top) for run in runs)
    legend = [(index, phase) for index, phase in enumerate((*PHASES, REST)) if any(phase in p for p in timed.values())]
    rows = {
        phase: tuple(float(phases[phase].mean()) if phase in phases else np.nan for phases in timed.values())
        for _, phase in legend
    }
    return Phases(tuple(chart for chart in charts if chart is not None), tuple(legend), tuple(timed), rows)
