"""Held-out figures before and after a training, and CompBench's if a run's folder holds them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from deploy.records.reading import RunRecord
from deploy.report.arms import Arm
from deploy.report.measures import ACD_REWARD, TASK_REWARD, lower_is_better
from rc_grpo.evaluation.alarm import Alarm, HeldOutSeries, Training, find_alarms, overpraise
from rc_grpo.evaluation.compbench.scores import METRICS, Scores
from rc_grpo.evaluation.intervals import LEVEL

COMPBENCH = "compbench*.json"
"""Where a run's folder holds what ``rc-grpo evaluate --compbench ... --out RUN/compbench.json`` wrote."""


@dataclass(frozen=True)
class Change:
    """A held-out measure before and after.

    Attributes:
        measure: its name.
        arm: number of the arm.
        label: of the arm.
        before: mean at the first evaluation.
        after: mean at the last.
        difference: mean of the paired differences.
        error: standard error of that mean: over the tasks of one run, or over the seeds of several; NaN if unknown.
        freedom: degrees of freedom of that error.
        tasks: held-out tasks that count.
        lower_is_better: less is better.
    """

    measure: str
    arm: int
    label: str
    before: float
    after: float
    difference: float
    error: float
    freedom: int
    tasks: int
    lower_is_better: bool

    @property
    def in_errors(self) -> float:
        """The difference in units of its standard error; NaN if that is unknown."""
        return self.difference / self.error if self.error > 0 else math.nan

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where the difference's interval of `LEVEL` excludes 0, else ``even``."""
        if not (self.error > 0 and abs(self.in_errors) > stats.t.ppf((1 + LEVEL) / 2, self.freedom)):
            return "even"
        return "better" if (self.difference < 0) == self.lower_is_better else "worse"


@dataclass(frozen=True)
class BenchmarkRow:
    """A run's overall result on CompBench.

    Attributes:
        method: the run and the model measured.
        scores: official ones.
        measured: how many samples of how many.
        whole: the benchmark was measured as a whole, as published numbers are.
    """

    method: str
    scores: Scores
    measured: str
    whole: bool


def changes(arms: Sequence[Arm]) -> dict[str, list[Change]]:
    """Return by measure what became of it in each arm whose runs have two evaluations or more."""
    found: dict[str, list[Change]] = {}
    for number, arm in enumerate(arms):
        runs = [run for run in arm.runs if len(run.evaluations.updates) > 1]
        for measure in runs[0].evaluations.measures if runs else ():
            of_runs = [run for run in runs if measure in run.evaluations.measures]
            change = _change(measure, number, arm.label, of_runs)
            if change is not None:
                found.setdefault(measure, []).append(change)
    return found


def watch(run: RunRecord) -> list[Alarm]:
    """Return a run's alarms: its rewards against all that its evaluations measured."""
    evaluations = run.evaluations
    watched = [
        HeldOutSeries.of_tasks(name, evaluations.updates, values, lower_is_better=lower_is_better(name))
        for name, values in evaluations.measures.items()
    ]
    of_tasks = {f"heldout/{series.name}" for series in watched}
    for name, by_update in run.heldout.items():
        if name.startswith("heldout/") and name not in of_tasks:
            means = np.array(list(by_update.values()))
            measure = name.removeprefix("heldout/")
            watched.append(
                HeldOutSeries.of_means(measure, list(by_update), means, lower_is_better=lower_is_better(name))
            )
    rewards = {name: run.metrics[name] for name in (TASK_REWARD, ACD_REWARD) if name in run.metrics}
    trained = {name: Training(run.updates, values) for name, values in rewards.items()}
    return find_alarms(trained, watched, overpraise(TASK_REWARD, evaluations.updates, evaluations.measures))


def benchmark_rows(runs: Sequence[RunRecord]) -> list[BenchmarkRow]:
    """Return the CompBench results in the runs' folders.

    Raises:
        ValueError: a file of that name is something else.
    """
    return [_benchmark_row(run, path) for run in runs for path in sorted(run.folder.glob(COMPBENCH))]


def _change(measure: str, number: int, label: str, runs: Sequence[RunRecord]) -> Change | None:
    ends = [run.evaluations.measures[measure][[0, -1]] for run in runs]
    paired = [values[:, np.isfinite(values).all(axis=0)] for values in ends]
    paired = [values for values in paired if values.shape[1]]
    if not paired:
        return None
    by_run = [float((values[1] - values[0]).mean()) for values in paired]
    scatter = by_run if len(by_run) > 1 else paired[0][1] - paired[0][0]
    error = float(np.std(scatter, ddof=1) / math.sqrt(len(scatter))) if len(scatter) > 1 else math.nan
    before, after = (float(np.mean([values[end].mean() for values in paired])) for end in (0, 1))
    return Change(
        measure, number, label, before, after, float(np.mean(by_run)), error,
        len(scatter) - 1, sum(values.shape[1] for values in paired), lower_is_better(measure),
    )  # fmt: skip


def _benchmark_row(run: RunRecord, path: Path) -> BenchmarkRow:
    try:
        record = json.loads(path.read_text())
        overall = record["overall"]
        scores = Scores.from_json({name: overall["official"][name] for name in METRICS})
        measured = f"{overall['measured']} of {overall['expected']}"
        return BenchmarkRow(f"{run.name}: {record['model']}", scores, measured, bool(record["whole"]))
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not what `rc-grpo evaluate --compbench` writes ({error!r}); rename it or write it anew"
        ) from error
