"""Where a run is, in a word and a sentence: from its folder, and from its driver where that answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from deploy.records.curves import Array, Curves
from deploy.records.folder import RunFolder
from deploy.report.measures import TASK_REWARD
from deploy.watching.progress import SAY_A_WAIT_AFTER_S
from deploy.watching.status import folder_in_words
from rc_grpo.waiting import in_words

Word = Literal["running", "waiting", "stopping", "finished", "not running", "not reachable", "asking"]

PACE_OF = 20
"""The time left is told from the median of so many updates."""
_WAITS_IN_UPDATES = 2.0
"""A wait of less than so many updates' time is how the pools take turns."""

HELDOUT_REWARD = "heldout/reward"


@dataclass(frozen=True)
class State:
    """Where a run is.

    Attributes:
        word: for a badge.
        said: what is to be known about that, in a sentence; may be empty.
    """

    word: Word
    said: str

    @property
    def takes_orders(self) -> bool:
        """Whether somebody is there to be told anything."""
        return self.word in ("running", "waiting", "stopping")


@dataclass(frozen=True)
class Pace:
    """How far a run is.

    Attributes:
        done: updates made.
        planned: updates planned.
        seconds: of an update; NaN before the first.
        minutes: trained so far.
        reward: mean task reward of the first update and of the last; NaN without one.
        heldout: held-out reward of the first evaluation and of the last; NaN without one.
    """

    done: int
    planned: int
    seconds: float
    minutes: float
    reward: tuple[float, float]
    heldout: tuple[float, float]

    @property
    def left(self) -> float:
        """Seconds that the rest will take at this pace; NaN before the first update."""
        return self.seconds * max(0, self.planned - self.done)


def pace_of(curves: Curves, planned: int) -> Pace:
    """Return how far a run is by its metrics."""
    updates, seconds = curves.updates, curves.column("seconds/update_total")
    timed = seconds[np.isfinite(seconds)]
    measured = np.array(list(curves.heldout.get(HELDOUT_REWARD, {}).values()))
    return Pace(
        done=int(updates[-1]) if len(updates) else 0,
        planned=planned,
        seconds=float(np.median(timed[-PACE_OF:])) if len(timed) else np.nan,
        minutes=float(timed.sum()) / 60,
        reward=_ends(curves.column(TASK_REWARD)),
        heldout=_ends(measured),
    )


def state_of(folder: RunFolder, status: Mapping[str, Any] | None, silence: str, update_seconds: float) -> State:
    """Return where a run is.

    Args:
        folder: of the run.
        status: what its driver says; None where none answers.
        silence: why none does; empty while it is being asked.
        update_seconds: that an update takes; NaN where that is unknown.

    Raises:
        rc_grpo.kept.DamagedFileError: a file of the folder is not what the run wrote; says which.
    """
    if status:
        waits = status["waits"]
        longest = max((wait["seconds"] for wait in waits), default=0.0)
        patience = max(SAY_A_WAIT_AFTER_S, _WAITS_IN_UPDATES * np.nan_to_num(update_seconds))
        said = in_words(waits, 1)[0] if waits else ""
        if status["stopping"]:
            return State("stopping", "The update under way is finished, then a checkpoint is written.")
        return State("waiting", said) if longest >= patience else State("running", "")
    if folder.finished or folder.whereabouts is None:
        return State(
            "finished" if folder.finished else "not running", f"It {folder_in_words(folder.path)}.".replace("->", "→")
        )
    return State("not reachable", silence) if silence else State("asking", "Its driver is being asked.")


def _ends(values: Array) -> tuple[float, float]:
    there = values[np.isfinite(values)]
    return (float(there[0]), float(there[-1])) if len(there) else (np.nan, np.nan)
