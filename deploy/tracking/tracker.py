"""What an experiment tracker is to a run: it is opened, gets metrics, grids and a summary, and is closed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Ending = Literal["finished", "failed", "stopped"]
DEFAULT_PROJECT = "rc-grpo"
PICTURES = "candidates"
"""Name of the sample grids, as in TensorBoard."""


class TrackerError(RuntimeError):
    """A tracker that the configuration names cannot be used; the message says why, and the way out."""


class Tracker(Protocol):
    """One run in a tracker.

    Each method may block, and may raise whatever the tracker's library does. They are called one after the other from
    one thread, `open` first.
    """

    def open(self, run_id: str | None) -> str:
        """Begin a run, or go on with the one of this id; return its id."""

    def metrics(self, update: int, values: Mapping[str, float]) -> None:
        """Take finite metrics of an update."""

    def grid(self, update: int, path: Path) -> None:
        """Take an update's sample grid, a PNG."""

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        """Take what came of the run, after its last update."""

    def close(self, ending: Ending) -> None:
        """Say how the run ended, and send what is still on its way."""
