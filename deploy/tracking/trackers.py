"""The trackers that a run's configuration names: checked before the start, fed while it trains, closed with its end."""

import asyncio
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy.stopping import RunStoppedError
from deploy.tracking.courier import Courier, Record
from deploy.tracking.tracker import Ending, Tracker, TrackerError
from rc_grpo.config import OutputConfig, RunConfig

FOLDER = "trackers"

CLASSES: Mapping[str, str] = {
    "wandb": "deploy.tracking.wandb_run:WandbRun",
    "mlflow": "deploy.tracking.mlflow_run:MlflowRun",
    "swanlab": "deploy.tracking.swanlab_run:SwanlabRun",
    "trackio": "deploy.tracking.trackio_run:TrackioRun",
}
"""Each tracker's class; its name is the module of its library, and the extra that installs it."""


def check_trackers(output: OutputConfig) -> None:
    """Check that the trackers can be used, as far as that can be told without their servers.

    Raises:
        TrackerError: one is not installed, or has no key.
    """
    for name in output.trackers:
        found = importlib.util.find_spec(name)
        # Without an origin it is no package but a folder of that name: W&B leaves one where its library was used.
        if found is None or found.origin is None:
            raise TrackerError(f"output.trackers names {name}, which is not installed: pip install 'rc-grpo[{name}]'")
        _class(name).check()


class Trackers:
    """Opens a run's trackers on entering, and closes them by the way in which the block is left.

    Both block for as long as a server may take; enter it before signals are listened to, so that Ctrl-C still works.

    Args:
        config: of the run.
        folder: of the run.
        make: makes one from its name, the configuration and a folder for its files.
    """

    def __init__(
        self, config: RunConfig, folder: Path, make: Callable[[str, RunConfig, Path], Tracker] | None = None
    ) -> None:
        make = make or make_tracker
        self._couriers = [
            Courier(name, make(name, config, folder / FOLDER), folder / FOLDER / f"{name}.json")
            for name in config.output.trackers
        ]
        self._newest_grid = -1

    def __enter__(self) -> "Trackers":
        started: list[Courier] = []
        for courier in self._couriers:
            try:
                courier.start()
            except TrackerError:
                for other in started:
                    other.close("failed")
                raise
            started.append(courier)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending: Ending = "finished"
        if kind is not None:
            asked = issubclass(kind, RunStoppedError | asyncio.CancelledError | KeyboardInterrupt)
            ending = "stopped" if asked else "failed"
        for courier in self._couriers:
            courier.close(ending)

    def metrics(self, kind: str, update: int, values: Mapping[str, float]) -> None:
        """Send finite metrics of an update; ``kind`` is the event of their line in ``metrics.jsonl``."""
        self._take(Record(kind, update, lambda tracker: tracker.metrics(update, values)))

    def grids(self, paths: Mapping[int, Path]) -> None:
        """Send the newer ones of the sample grids drawn so far, by update."""
        for update in sorted(update for update in paths if update > self._newest_grid):
            self._newest_grid = update
            self._take(_grid(update, paths[update]))

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        """Send what came of the run."""
        self._take(Record("summary", update, lambda tracker: tracker.summary(update, values)))

    def _take(self, record: Record) -> None:
        for courier in self._couriers:
            courier.take(record)


def _grid(update: int, path: Path) -> Record:
    return Record("grid", update, lambda tracker: tracker.grid(update, path))


def make_tracker(name: str, config: RunConfig, folder: Path) -> Tracker:
    """Return a tracker, not opened yet."""
    return _class(name)(config, folder)


def _class(name: str) -> type[Tracker]:
    """Return the class of a tracker; its library is imported here and not before."""
    found: type[Tracker] = pkgutil.resolve_name(CLASSES[name])
    return found
