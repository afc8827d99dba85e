"""A run's checkpoints: each appears whole or not at all, and says by digest what it is made of.

The ranks write into a folder whose name says that it is unfinished. Only when every file of it is on the disk, listed
with size and digest in a manifest, does it get its name. A machine that dies in between leaves an unfinished folder,
and a disk that lies leaves one that does not fit its manifest; neither is ever restored.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.records.folder import Count, update_name
from rc_grpo.durable import sync
from rc_grpo.kept import DamagedFileError, Form, read_json
from rc_grpo.messages import PolicyVersion

logger = logging.getLogger(__name__)
MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished-"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used, or restored to something else than it says."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is of.

    Attributes:
        update: number of updates behind it.
        version: the policy in it.
        ledger: snapshot of the ledger.
        training_seconds: spent so far, over all processes that drove the run.
    """

    update: int
    version: PolicyVersion
    ledger: dict[str, Any]
    training_seconds: float


class _Version(Form):
    number: Count
    digest: str
    modules: Count
    is_identity: bool


class _File(Form):
    bytes: Count
    sha256: str


class _Record(Form):
    update: Count
    version: _Version
    ledger: dict[str, Any]
    training_seconds: float
    files: dict[str, _File]


class Checkpoints:
    """The checkpoints in one folder, named by the update they were made after.

    Args:
        folder: that holds them; on storage that driver and learner share.
        kept: how many are kept.
    """

    def __init__(self, folder: Path, kept: int) -> None:
        self.folder = folder
        self._kept = kept

    @property
    def names(self) -> list[str]:
        """Names of those that were finished, oldest first."""
        names = (path.name for path in self.folder.glob("update-*") if path.is_dir())
        return sorted(names, key=lambda name: (len(name), name))

    def begin(self, update: int) -> str:
        """Return the name of a new folder into which the ranks are to write; that of an earlier try is removed."""
        name = f"{_UNFINISHED}{update_name(update)}"
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / name).mkdir(parents=True)
        return name

    def commit(self, begun: str, manifest: Manifest) -> Path:
        """Make what the ranks have written a checkpoint; the oldest beyond those kept are removed. Blocks on the disk.

        Args:
            begun: the name that `begin` gave.
            manifest: what it is of.
        """
        unfinished, finished = self.folder / begun, self.folder / update_name(manifest.update)
        files = {name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for name, path in _files(unfinished)}
        record = json.dumps(asdict(manifest) | {"files": files}, indent=2) + "\n"
        (unfinished / MANIFEST).write_text(record)
        for folder, _, names in os.walk(unfinished):
            for path in (*(Path(folder, name) for name in names), Path(folder)):
                sync(path)
        shutil.rmtree(finished, ignore_errors=True)
        unfinished.rename(finished)
        sync(self.folder)
        for name in self.names[: -self._kept]:
            shutil.rmtree(self.folder / name)
        return finished

    def latest(self) -> tuple[str, Manifest] | None:
        """Return name and manifest of the newest checkpoint that is whole, or None. Reads every byte of it.

        One that is torn is skipped, said, and renamed, so that it does not count among those kept.
        """
        for name in reversed(self.names):
            try:
                return name, self._checked(self.folder / name)
            except CheckpointError as error:
                logger.warning("skipping a torn checkpoint: %s", error)
                torn = self.folder / f".torn-{name}"
                shutil.rmtree(torn, ignore_errors=True)
                (self.folder / name).rename(torn)
        return None

    def _checked(self, folder: Path) -> Manifest:
        try:
            record = read_json(folder / MANIFEST, _Record, "an earlier checkpoint is taken")
            files = record.pop("files")
            manifest = Manifest(**record | {"version": PolicyVersion(**record["version"])})
        except (DamagedFileError, TypeError) as error:
            raise CheckpointError(f"{folder} has no whole {MANIFEST}: {error}") from error
        there = dict(_files(folder))
        for name, expected in files.items():
            path = there.get(name)
            if path is None or path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
                raise CheckpointError(f"{folder / name} is {'missing' if path is None else 'not what was written'}")
        return manifest


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            yield str(path.relative_to(folder)), path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
