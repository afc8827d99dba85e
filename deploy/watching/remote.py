"""Finding a run that goes on somewhere, and talking to its control actor."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from deploy.cluster import UnreachableError, namespace, visit
from deploy.records.folder import CONFIG, RunFolder
from deploy.watching import control
from rc_grpo.config import ConfigError


class NotRunningError(ConfigError):
    """Nobody drives the run now."""


def find_folder(run: str | None, root: Path) -> Path | None:
    """Return the folder of the run that is meant: by path, by name, or the only one that is driven; None without one.

    Raises:
        ConfigError: no run is named and not exactly one of those in ``root`` is driven.
    """
    if run is not None:
        return next((path for path in (Path(run), root / run) if path.is_dir()), None)
    driven = sorted(path for path in root.glob("*") if path.is_dir() and RunFolder(path).whereabouts)
    if len(driven) > 1:
        raise ConfigError(f"several runs are under way; name one with --run: {', '.join(path.name for path in driven)}")
    return driven[0] if driven else None


def runs_in(root: Path) -> list[Path]:
    """Return the folders of the runs in a folder, the last begun first."""
    folders = [path for path in root.glob("*") if (path / CONFIG).is_file()]
    return sorted(folders, key=lambda path: (path / CONFIG).stat().st_mtime, reverse=True)


@contextmanager
def control_of(run: str | None, address: str | None, root: Path) -> Iterator[Any]:
    """Connect to the cluster of a run and yield its control actor.

    Args:
        run: name or folder; None for the only one.
        address: of the cluster; None for what the run's folder says, else RAY_ADDRESS, else this machine's.
        root: folder of the runs' folders.

    Raises:
        NotRunningError: there is no cluster, or the run is not on it.
    """
    folder = find_folder(run, root)
    told = RunFolder(folder).whereabouts if folder else None
    if folder is not None and told is None and address is None and "RAY_ADDRESS" not in os.environ:
        raise NotRunningError(f"nobody drives {folder} now")
    address = address or (told["address"] if told else os.environ.get("RAY_ADDRESS", "auto"))
    try:
        visit(address, told["auth"] if told else None)
    except (UnreachableError, ConnectionError, RuntimeError) as error:
        raise NotRunningError(f"{run or 'the run'} is not running: {error}") from error
    try:
        yield _actor(folder.name if folder else run, told["namespace"] if told else None, address)
    finally:
        ray.shutdown()


def _actor(run: str | None, home: str | None, address: str) -> Any:
    named = ray.util.list_named_actors(all_namespaces=True)
    rooms = [actor["namespace"] for actor in named if actor["name"] == control.NAME]
    if home is None and run is not None:
        home = namespace(run)
    if home is None and len(rooms) == 1:
        home = rooms[0]
    if home is None or home not in rooms:
        raise NotRunningError(
            f"{run or 'no single run'} is not running on {address}; running: {', '.join(rooms) or 'nothing'}"
        )
    return ray.get_actor(control.NAME, home)
