"""A run's status for a console: where it is, what its pools do, what is being waited for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from deploy.records.checkpoints import Checkpoints
from deploy.records.folder import RunFolder
from rc_grpo.waiting import in_words

WAITS_SHOWN = 8
COLUMNS = ("workers", "wanted", "starting", "leaving", "resting", "lost", "queued")


def draw_status(status: Mapping[str, Any]) -> Group:
    """Return a status (see `deploy.watching.snapshot.Snapshot.as_dict`) as tables and lines for a console."""
    table = Table()
    table.add_column("pool")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for role, summary in status["pools"].items():
        table.add_row(role, *(f"{summary[column]:g}" for column in COLUMNS))
    ledger = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in status["groups"].items())
    stopping = ", stopping" if status["stopping"] else ""
    lines = [
        f"{status['run']}: update {status['update']} of {status['updates']}, {status['version']}{stopping}",
        f"groups: {ledger}",
        f"learner: {status['learner']['ranks']} ranks, lost {status['learner']['losses']} times since its checkpoint",
    ]
    waits = in_words(status["waits"], WAITS_SHOWN) or ["nothing is being waited for"]
    return Group(Text("\n".join(lines)), table, Text("\n".join(waits)))


def draw_folder(path: Path) -> str:
    """Return what the folder of a run that nobody drives says of it."""
    return f"{path} {folder_in_words(path)}"


def folder_in_words(path: Path) -> str:
    """Return what becomes a sentence about a run that nobody drives, by its folder."""
    folder, checkpoints = RunFolder(path), Checkpoints(path / "checkpoints", kept=1).names
    if (summary := folder.summary) is not None:
        gain = summary.get("heldout")
        rewards = f", held-out reward {gain['before']:.4f} -> {gain['after']:.4f}" if gain else ""
        return f"is finished: {summary['updates']} updates{rewards}"
    if not checkpoints:
        return "is not running, and has no checkpoint yet"
    return f"is not running; its last checkpoint is {checkpoints[-1]}. Go on with: rc-grpo train --resume {path}"
