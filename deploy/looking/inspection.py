"""Looking into a run: groups from its experience log as a contact sheet."""

from pathlib import Path

import numpy as np
from PIL import Image

from deploy.outputs import check_picture
from deploy.records.contact_sheet import Row, contact_sheet, group_row
from deploy.records.folder import CONFIG, RunFolder
from rc_grpo.config import load
from rc_grpo.data import load_tasks
from rc_grpo.data.log.logged import LoggedGroup, read_groups
from rc_grpo.messages import EditTask


def write_sheet(run: Path, update: int | None, groups: int, out: Path | None) -> str:
    """Draw the groups of one update (see `widest_groups`), and return in words where the sheet is.

    Args:
        run: its folder.
        update: 1-based; None takes the last one logged.
        groups: at most so many.
        out: the picture; None puts it into the run's folder.

    Raises:
        ValueError: it cannot be written, or as `widest_groups`.
    """
    check_picture(out, "--out")
    sheet, shown = inspect_run(run, update, groups)
    path = out or run / f"inspect-{shown:05d}.png"
    sheet.save(path)
    return f"update {shown} of {run}: {path}"


def inspect_run(folder: Path, update: int | None, groups: int) -> tuple[Image.Image, int]:
    """Draw the groups of one update as a sheet; see `widest_groups`."""
    rows, shown = widest_groups(folder, update, groups)
    return contact_sheet(rows), shown


def widest_groups(folder: Path, update: int | None, groups: int) -> tuple[list[Row], int]:
    """Return a row for each of the groups of one update whose rewards spread most, the widest first.

    Args:
        folder: of the run.
        update: 1-based; None takes the last one logged.
        groups: at most so many.

    Returns:
        The rows, and the update shown.

    Raises:
        ValueError: there is no such run or update, no images in its log, or a task of it is gone from the data.
    """
    logged = RunFolder(folder).experience()
    if not logged:
        raise ValueError(
            f"{folder} holds no experience; is it a run's folder, and output.experience not `none`? The tasks of a "
            f"configuration are drawn by: rc-grpo inspect {folder} --tasks 12"
        )
    shown = max(logged) if update is None else update
    if shown not in logged:
        raise ValueError(f"{folder} has no experience of update {shown}; there are {min(logged)}..{max(logged)}")
    ranked = sorted(read_groups(logged[shown], need="images"), key=_spread, reverse=True)[:groups]
    data = load_tasks(load(folder / CONFIG).data.train)
    return [_row(group, data.find(group.task_id)) for group in ranked], shown


def _spread(group: LoggedGroup) -> float:
    rewards = group.scores.task_reward
    scored = rewards[~np.isnan(rewards)]
    return float(scored.std()) if len(scored) else 0.0


def _row(group: LoggedGroup, task: EditTask | None) -> Row:
    if task is None:
        raise ValueError(f"task {group.task_id!r} is no longer in the run's training data; bring the data back")
    return group_row(task, group.candidates.images, group.scores)
