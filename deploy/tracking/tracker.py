"""What an experiment tracker is to a run: it is opened, gets metrics, grids and a summary, and is closed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from rc_grpo.config import RunConfig
from rc_grpo.config.differences import flat

Ending = Literal["finished", "failed", "stopped"]
DEFAULT_PROJECT = "rc-grpo"
PICTURES = "candidates"
"""Name of the sample grids, as in TensorBoard."""


class TrackerError(RuntimeError):
    """A tracker that the configuration names cannot be used; the message says why, and the way out."""


class Tracker(Protocol):
    """One run in a tracker; keys, servers and modes are read by its library from the environment.

    Each method may block, and may raise whatever the tracker's library does. They are called one after the other from
    one thread, `open` first.

    Args:
        config: of the run; the tracker shows it.
        folder: for its library's files, where it has such.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None: ...

    @classmethod
    def check(cls) -> None:
        """Find out before the start, without a server, whether it can be used.

        Raises:
            TrackerError: it cannot.
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


def summary_leaves(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what came of a run as flat values by name, ``summary/heldout/gain``."""
    return {f"summary/{name.replace('.', '/')}": value for name, value in flat(dict(values)).items()}


def summary_figures(values: Mapping[str, Any]) -> dict[str, float]:
    """Return those of `summary_leaves` that are numbers."""
    return {name: value for name, value in summary_leaves(values).items() if isinstance(value, int | float)}
