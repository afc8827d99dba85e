"""The groups of the newest update: what was to be edited, the candidates, their scores, and what the judges said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.records.folder import RunFolder
from deploy.report.distributions import GroupNote, notes_in
from deploy.report.groups import ShownGroup, chosen, shown_group
from rc_grpo.config import ConfigError, parse
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.log.logged import LoggedGroup, read_groups
from rc_grpo.messages import EditTask

BEST, FAILED = 2, 1
"""Groups that are shown of an update: so many of the highest mean reward, of the lowest, and without any score."""


@dataclass(frozen=True)
class Verdict:
    """What became of a candidate.

    Attributes:
        name: ``reference``, or its number.
        reward: the task reward; NaN where there is none.
        word: the reward in words: why there is none, where there is none.
        parts: what each judge gave, rewards first; NaN where it gave nothing.
        advantage: NaN where it was not learned from.
        reason: what the judge said, or why scoring failed; empty if nothing was.
    """

    name: str
    reward: float
    word: str
    parts: tuple[float, ...]
    advantage: float
    reason: str


@dataclass(frozen=True)
class JudgedGroup:
    """A group with all that was said of it.

    Attributes:
        shown: its pictures.
        columns: names of the verdicts' parts; of a single judge without its name.
        verdicts: of the candidates that are shown, in their order.
    """

    shown: ShownGroup
    columns: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Newest:
    """What is there of the newest update.

    Attributes:
        update: whose groups these are; None where none is logged.
        logged: how many groups it has.
        groups: some of them, the best first.
        grid: newest update with a sample grid; None without one.
        remark: what is missing and why; empty if nothing is.
    """

    update: int | None
    logged: int
    groups: tuple[JudgedGroup, ...]
    grid: int | None
    remark: str


def newest(folder: RunFolder, config: Mapping[str, Any]) -> Newest:
    """Return the groups of a run's newest update, as far as its folder holds them.

    Args:
        folder: of the run.
        config: as in its ``config.yaml``.
    """
    grid, experience = max(folder.grids(), default=None), folder.experience()
    if not experience:
        output = config.get("output")
        off = isinstance(output, Mapping) and output.get("experience") == "none"
        why = "The run logs no groups: output.experience is none." if off else "No group is logged yet."
        return Newest(None, 0, (), grid, why)
    update, path = max(experience.items())
    try:
        notes = notes_in(update, path)
        failed = [("failed", note) for note in notes if np.isnan(note.reward)]
        picked = [*chosen(notes, BEST), *failed[:FAILED]]
        groups = tuple(_judged(rank, note, path, config) for rank, note in picked)
    except ValueError as error:
        return Newest(update, 0, (), grid, f"The newest groups cannot be read: {error}")
    bare = any(not group.shown.candidates for group in groups)
    remark = "There are scores and no pictures: output.experience is scores." if bare else ""
    return Newest(update, len(notes), groups, grid, remark)


def _judged(rank: str, note: GroupNote, path: Path, config: Mapping[str, Any]) -> JudgedGroup:
    group = read_groups(path, need="scores", most="images", task_id=note.task_id)[note.turn]
    shown = shown_group(rank, note, group, _task(config, note.task_id))
    columns = {**(group.scores.rewards if len(group.scores.rewards) > 1 else {}), **group.scores.subscores}
    verdicts = tuple(_verdict(group, index, list(columns.values())) for index in shown.order)
    judges = {name.partition(".")[0] for name in columns}
    named = [name.partition(".")[2] or name if len(judges) == 1 else name for name in columns]
    return JudgedGroup(shown, tuple(named), verdicts)


def _verdict(group: LoggedGroup, index: int, columns: Sequence[NDArray[np.float64]]) -> Verdict:
    reason = group.scores.reasons[index] if index < len(group.scores.reasons) else None
    name = "reference" if index == 0 else str(index)
    parts = tuple(float(values[index]) for values in columns)
    reward, word = float(group.scores.task_reward[index]), group.scores.in_words(index)
    return Verdict(name, reward, word, parts, float(group.advantages[index]), reason or "")


def _task(config: Mapping[str, Any], task_id: str) -> EditTask | None:
    """Return a generated task; to find one of a data set, all of it would be read."""
    try:
        source = parse(dict(config)).data.train
        return load_tasks(source).find(task_id) if source.format == "pocket" else None
    except (ConfigError, DataError):
        return None
