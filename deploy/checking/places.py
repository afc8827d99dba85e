"""Where a run writes: may it, and is there room for what it leaves."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from deploy.checking.finding import Finding, finding
from deploy.checking.size import run_size
from deploy.records.folder import RunFolder
from rc_grpo.config import ConfigError, RunConfig

GIB = 2**30


def check_places(config: RunConfig, *, begun: bool) -> Iterator[Finding]:
    """Yield whether the run's folder may be written, and whether the disk has room for it.

    Args:
        config: of the run.
        begun: the run's folder is there already, to go on in.
    """
    writable = finding("output.root", lambda: _writable(config, begun=begun))
    yield writable
    if writable.state == "fine":
        yield _room(config)


def _writable(config: RunConfig, *, begun: bool) -> str:
    folder = RunFolder.of(config)
    if not begun:
        folder.check_free()
    place = _nearest(folder.path)
    if not place.is_dir():
        raise ConfigError(f"{place} is no folder, and output.root = {config.output.root} lies in it")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{place} may not be written by this user; set output.root to a folder that may")
    return f"the run's folder is {folder.path}"


def _room(config: RunConfig) -> Finding:
    place = _nearest(RunFolder.of(config).path)
    free, parts = shutil.disk_usage(place).free, run_size(config)
    total = sum(parts.values())
    most = max(parts, key=lambda name: parts[name])
    told = f"up to {total / GIB:.1f} GiB, most of it {most}; {free / GIB:.1f} GiB are free at {place}"
    if total <= free:
        return Finding("disk", "fine", told)
    return Finding(
        "disk", "note", f"{told}: lower output.experience, output.policies or output.checkpoints_kept, or make room"
    )


def _nearest(path: Path) -> Path:
    """Return the nearest of a path and its parents that is there."""
    return next(found for found in (path, *path.parents) if found.exists())
