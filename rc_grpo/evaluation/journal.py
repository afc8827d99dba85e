"""A file of records that survives a kill at any moment: a JSON object a line, on the disk before the next is begun."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rc_grpo.durable import sync


class Journal:
    """Appends to a file that `opened` has put in order. One process at a time; callers see to that with a lock."""

    def __init__(self, file: BinaryIO, records: tuple[Mapping[str, Any], ...]) -> None:
        self.records = records
        """What the file held when it was opened."""
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["Journal"]:
        """Open a journal, or begin one. What a kill has left of a last line is cut off.

        Raises:
            ValueError: a line before the last is not a JSON object, which no kill explains.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            sync(path.parent)
            file.seek(0)
            whole, newline, _ = file.read().rpartition(b"\n")
            file.truncate(len(whole) + len(newline))
            yield cls(file, tuple(_record(path, *line) for line in enumerate(whole.splitlines(), 1)))

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; it is on the disk when this returns."""
        self._file.write(json.dumps(dict(record), allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def _record(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number} is not JSON ({error}); mend or remove the line") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}, line {number} is not a JSON object; mend or remove the line")
    return record
