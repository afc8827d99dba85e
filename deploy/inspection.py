"""Looking into a run: groups from its experience log as a contact sheet."""

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from deploy.contact_sheet import Row, contact_sheet, group_row
from deploy.folder import RunFolder
from rc_grpo.config import parse
from rc_grpo.data import load_tasks
from rc_grpo.data.experience import read_experience
from rc_grpo.images import decode_rgb


def inspect_run(folder: Path, update: int | None, groups: int) -> tuple[Image.Image, int]:
    """Draw the groups of one update, those with the widest spread of rewards first.

    Args:
        folder: of the run.
        update: 1-based; None takes the last one logged.
        groups: at most so many.

    Returns:
        The sheet, and the update shown.

    Raises:
        ValueError: there is no such run, update, or no images in its log.
    """
    logged = RunFolder(folder).experience()
    if not logged:
        raise ValueError(f"{folder} holds no experience; is it a run's folder, and output.experience not `none`?")
    shown = max(logged) if update is None else update
    if shown not in logged:
        raise ValueError(f"{folder} has no experience of update {shown}; there are {min(logged)}..{max(logged)}")
    table = read_experience(logged[shown])
    if "image" not in table.column_names:
        raise ValueError(f"{folder} logged scores only; images need output.experience `images` or `states`")
    config = parse(yaml.safe_load((folder / "config.yaml").read_text()))
    tasks = {task.task_id: task for task in load_tasks(config.data.train)}
    rows: list[tuple[float, Row]] = []
    for task_id in table.column("task_id").unique().to_pylist():
        records = [record for record in table.to_pylist() if record["task_id"] == task_id]
        records.sort(key=lambda record: record["candidate"])
        rewards = [float("nan") if r["task_reward"] is None else r["task_reward"] for r in records]
        images = np.stack([decode_rgb(record["image"]["bytes"]) for record in records])
        rows.append((float(np.nan_to_num(np.nanstd(rewards))), group_row(tasks[task_id], images, rewards)))
    rows.sort(key=lambda pair: -pair[0])
    return contact_sheet([row for _, row in rows[:groups]]), shown
