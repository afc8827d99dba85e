"""``rc-grpo report``: from runs' folders to one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from deploy.outputs import check_file
from deploy.records.reading import RunRecord, read_runs
from deploy.report.arms import Arm, arms_of, differences
from deploy.report.charts import distribution_chart
from deploy.report.curves import SMOOTHED_ABOVE
from deploy.report.distributions import GroupNote, notes_of
from deploy.report.groups import LAST_UPDATES, Gallery, gallery
from deploy.report.heldout import COMPBENCH, benchmark_rows, changes
from deploy.report.panels import curve_sections, time_by_phase
from deploy.report.summary import summaries
from deploy.report.svg import Chart
from deploy.report.templating import environment
from deploy.web.policy import digest
from rc_grpo.durable import write_whole
from rc_grpo.evaluation import alarm
from rc_grpo.evaluation.compbench import paper
from rc_grpo.evaluation.compbench.scores import METRICS
from rc_grpo.evaluation.intervals import LEVEL

GROUPS_AT_MOST = 24
"""On the whole page, shared by the runs, so that the page stays of a size that opens at once."""
GROUPS_A_RUN = 3
"""Of the best, and of the worst."""
QUANTILES = (0.1, 0.5, 0.9)
DISTRIBUTIONS = {"drift": "background drift of a group", "spread": "spread of reward within a group"}
"""Attribute of `GroupNote` -> words."""


@dataclass(frozen=True, eq=False)
class Distribution:
    """How a quantity of the training groups is distributed.

    Attributes:
        chart: the distribution functions.
        rows: arm's number and label, how many groups, and the `QUANTILES`.
    """

    chart: Chart
    rows: tuple[tuple[int, str, int, tuple[float, ...]], ...]


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
        "sections": curve_sections(runs, arms),
        "distributions": _distributions(arms, notes),
        "quantiles": QUANTILES,
        "held_out": held_out,
        "benchmark": benchmark_rows(runs),
        "galleries": _galleries(runs, notes),
        "last_updates": LAST_UPDATES,
        "differences": differing,
        "phases": time_by_phase(runs),
        "metrics": METRICS,
        "paper": paper,
        "compbench": COMPBENCH,
        "confidence": LEVEL,
        "smoothed_above": SMOOTHED_ABOVE,
        "long": any(len(run.updates) > SMOOTHED_ABOVE for run in runs),
        "alarm": alarm,
    }
    templates = environment("deploy.report")
    script = templates.get_template("report.js").render()
    context |= {"script": Markup(script), "script_hash": digest(script)}
    return templates.get_template("report.html.j2").render(context)


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
