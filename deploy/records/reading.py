"""A run's folder, read for the page: finished or still running, of this version or an earlier one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.records.curves import Array, Curves, plain
from deploy.records.folder import CONFIG, Count, RunFolder
from deploy.records.metrics import METRICS, read_lines
from rc_grpo.kept import Form, damaged, read_yaml


class _Loop(Form):
    updates: Count


class _Config(Form):
    seed: int
    loop: _Loop


@dataclass(frozen=True, eq=False)
class Evaluations:
    """Held-out evaluations of a run, of the tasks that all of them scored.

    Attributes:
        updates: ``[K]``, updates made at each, rising.
        tasks: ids.
        measures: name -> ``[K, tasks]``; NaN where a task has no value.
    """

    updates: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    measures: dict[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RunRecord:
    """What a run has left so far.

    Attributes:
        folder: of the run.
        name: on the page.
        config: as in its ``config.yaml``.
        environment: as in its ``environment.json``; empty without one.
        summary: as in its ``summary.json``; None while it is not finished.
        updates: ``[n]``, the updates made.
        metrics: name -> ``[n]``; NaN where an update did not log it.
        heldout: name -> update -> mean, as logged at evaluations.
        evaluations: task by task.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any] | None
    updates: NDArray[np.int64]
    metrics: dict[str, Array]
    heldout: dict[str, dict[int, float]]
    evaluations: Evaluations

    @cached_property
    def experience(self) -> dict[int, Path]:
        """The files of the experience log by update, in order."""
        return RunFolder(self.folder).experience()

    @property
    def minutes(self) -> float:
        """Minutes of training: as the run says at its end, else those of the updates that are logged."""
        if self.summary is not None:
            return float(self.summary["training_minutes"])
        return float(np.nansum(self.metrics.get("seconds/update_total", np.zeros(1)))) / 60


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read runs, in their order; those of one name are told apart by the folder around.

    Raises:
        ValueError: none or one twice was given, a folder is missing or no run's, or a run has not made an update yet.
    """
    if not folders:
        raise ValueError("name at least one run's folder, such as runs/NAME")
    places = [folder.resolve() for folder in folders]
    if twice := [str(place) for place in dict.fromkeys(places) if places.count(place) > 1]:
        raise ValueError(f"{', '.join(twice)} was named twice; name every run once")
    names = [place.name for place in places]
    return [
        read_run(place, place.name if names.count(place.name) == 1 else f"{place.parent.name}/{place.name}")
        for place in places
    ]


def read_run(folder: Path, name: str) -> RunRecord:
    """Read one run.

    Args:
        folder: of the run.
        name: on the page.

    Raises:
        ValueError: there is no such folder, it is no run's, or the run has not made an update yet.
    """
    check_run(folder)
    curves = Curves()
    for line in read_lines(folder / METRICS):
        curves.add(line)
    if not len(curves):
        raise ValueError(f"{folder} has no updates yet; there is something to report after the first one")
    return record_of(folder, name, curves)


def check_run(folder: Path) -> None:
    """Check that a folder is a run's.

    Raises:
        ValueError: there is no such folder, or it is no run's.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name a run's, such as runs/NAME")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} has no {CONFIG}, so it is no run's folder; name one that `rc-grpo train` wrote")


def config_of(folder: Path) -> dict[str, Any]:
    """Return a run's configuration as its folder has it; of another version it may lack keys, or have more.

    Raises:
        rc_grpo.kept.DamagedFileError: it is not what a run wrote.
    """
    return read_yaml(folder / CONFIG, _Config, "bring it back from a copy")


def record_of(folder: Path, name: str, curves: Curves) -> RunRecord:
    """Return the record of a run whose metrics are read already, with what else its folder holds now.

    Args:
        folder: of the run.
        name: on the page.
        curves: of its metrics; may hold no update yet.

    Raises:
        rc_grpo.kept.DamagedFileError: a file is not what the run wrote; says which.
    """
    files = RunFolder(folder)
    return RunRecord(
        folder=folder,
        name=name,
        config=config_of(folder),
        environment=files.environment or {},
        summary=files.summary,
        updates=curves.updates,
        metrics=curves.metrics,
        heldout=curves.heldout,
        evaluations=_evaluations(folder, files.evaluations()),
    )


def _evaluations(folder: Path, texts: dict[int, str]) -> Evaluations:
    """Align evaluations task by task, whatever measures they hold: those that all of them have are read."""
    if not texts:
        return Evaluations()
    records = [json.loads(text) for text in texts.values()]
    common = set(records[0]["tasks"]).intersection(*(record["tasks"] for record in records))
    tasks = tuple(task for task in records[0]["tasks"] if task in common)
    found = [_by_name(folder, update, record) for update, record in zip(texts, records, strict=True)]
    measures: dict[str, Array] = {}
    for name in found[0]:
        if not all(name in values for values in found):
            continue
        rows = []
        for record, values in zip(records, found, strict=True):
            at = {task: index for index, task in enumerate(record["tasks"])}
            rows.append(values[name][[at[task] for task in tasks]])
        measures[name] = np.array(rows)
    only = [name for name in measures if name.startswith("reward/")]
    if len(only) == 1:
        del measures[only[0]]
    return Evaluations(tuple(texts), tasks, measures)


def _by_name(folder: Path, update: int, record: dict[str, Any]) -> dict[str, Array]:
    """Return whatever has a value for each task, by the name that its mean has among the metrics."""
    count = len(record["tasks"])
    flat = {key: values for key, values in record.items() if key != "tasks" and isinstance(values, list)}
    for key, group in record.items():
        if isinstance(group, dict):
            prefix = "reward/" if key == "rewards" else ""
            lists = {name: values for name, values in group.items() if isinstance(values, list)}
            flat |= {prefix + name.replace(".", "/"): values for name, values in lists.items()}
    for name, values in flat.items():
        if not all(value is None or type(value) in (int, float) for value in values):
            where = RunFolder(folder).evaluation_file(update)
            raise damaged(where, f"{name} holds what is no number", "bring it back from a copy, or remove it")
    return {name: np.array(list(map(plain, values))) for name, values in flat.items() if len(values) == count}
