"""A folder that is there whole or not at all, made by one process at a time."""

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rc_grpo.durable import sync

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 3600.0
"""How long one process waits for another that makes the same folder."""


class FolderBusyError(ValueError):
    """Another process makes the same folder and did not finish in time; the message names both."""


@contextmanager
def locked(out: Path, timeout: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold ``OUT.lock``, so that nobody else makes ``out`` meanwhile; it is gone afterwards.

    Raises:
        FolderBusyError: somebody else held it for longer than ``timeout`` seconds.
    """
    path = out.with_name(f"{out.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("%s is being made by %s; waiting for %s, at most %.0f s", out, _maker(out), path, timeout)
        try:
            lock.acquire(timeout=timeout)
        except Timeout as error:
            raise FolderBusyError(
                f"{out} is being made by {_maker(out)}, which still held {path} after {timeout:.0f} s; "
                "wait for it or end it, then run this again"
            ) from error
    try:
        yield
    finally:
        # Unlinked while held: whoever opened the old file meanwhile finds it without a name and opens the new one.
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Make a folder beside ``out`` and give it that name once the context ends well; call it while `locked`.

    Every file is on the disk before the name is. After an error, an interruption included, nothing is left; what a
    killed process left is removed by the next one.
    """
    for left in _unfinished(out):
        log.warning("removing %s, left behind by a run that was killed", left)
        shutil.rmtree(left)
    folder = out.with_name(f".{out.name}.by-{socket.gethostname()}-{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
        for path in [*folder.rglob("*"), folder]:
            sync(path)
        folder.rename(out)
        sync(out.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unfinished(out: Path) -> list[Path]:
    prefix = f".{out.name}.by-"
    return [path for path in out.parent.iterdir() if path.name.startswith(prefix)]


def _maker(out: Path) -> str:
    makers = [path.name.rpartition(".by-")[2] for path in _unfinished(out)]
    return f"process {makers[0]}" if makers else "another process"
