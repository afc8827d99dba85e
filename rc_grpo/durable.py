"""Files that outlive a killed process, and the machine going down."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Return when a file's bytes, or a folder's names, are on the disk: what is of a file says nothing of its name."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, data: str | bytes | memoryview) -> None:
    """Write a file that is there whole or not at all, whenever the process is killed, and on the disk afterwards.

    Args:
        path: of the file, whose folder is made; what it held before is there until all of ``data`` is.
        data: its bytes, or text for UTF-8. One process at a time writes a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name: what a kill leaves is overwritten when the file is made again.
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)
