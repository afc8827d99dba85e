"""Background drift and spread of reward of every training group, from the experience log (the paper's Fig. 5)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.records.reading import RunRecord
from rc_grpo.data.log.experience import read_experience

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GroupNote:
    """The numbers of one group, without its images.

    Attributes:
        update: 1-based.
        path: of the log's file.
        task_id: its task.
        turn: how many groups of that task are before it in the file, as where an epoch ends within an update.
        reward: mean task reward of the candidates that have one; NaN without.
        spread: population standard deviation of those rewards; NaN with fewer than two.
        drift: mean background drift.
    """

    update: int
    path: Path
    task_id: str
    turn: int
    reward: float
    spread: float
    drift: float


def notes_of(run: RunRecord) -> list[GroupNote]:
    """Return a note on every group of a run's log, in its order; reads no image."""
    return [note for update, path in run.experience.items() for note in notes_in(update, path)]


def notes_in(update: int, path: Path) -> list[GroupNote]:
    """Return a note on every group of an update's file, in its order.

    Raises:
        ValueError: it is another kind of file, or damaged.
    """
    table = read_experience(path, columns=["task_id", "candidate", "task_reward", "background_drift"])
    reward, drift = (table.column(name).to_numpy().astype(np.float64) for name in ("task_reward", "background_drift"))
    starts = np.flatnonzero(table.column("candidate").to_numpy() == 0)
    notes: list[GroupNote] = []
    for rows in np.split(np.arange(table.num_rows), starts[1:]):
        task_id = table.column("task_id")[int(rows[0])].as_py()
        scored = reward[rows][np.isfinite(reward[rows])]
        notes.append(
            GroupNote(
                update,
                path,
                task_id,
                sum(note.task_id == task_id for note in notes),
                float(scored.mean()) if len(scored) else np.nan,
                float(scored.std()) if len(scored) > 1 else np.nan,
                float(drift[rows].mean()),
            )
        )
    return notes
