"""Tasks from JSON lines: one object a line, images as paths relative to the file's folder."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rc_grpo.data.columns import resolve_columns
from rc_grpo.data.errors import DataError, printable
from rc_grpo.data.record import Record
from rc_grpo.data.text import identity


@dataclass(frozen=True)
class JsonLines:
    """Reader of one file.

    Attributes:
        path: the file.
        columns: field -> key.
        lines: number (from 1) and byte offset of every line that is not blank. The lines themselves stay in the file: a
            mask as run lengths makes them long.
    """

    path: Path
    columns: Mapping[str, str]
    lines: tuple[tuple[int, int], ...]

    @classmethod
    def open(cls, path: Path, mapping: Mapping[str, str]) -> "JsonLines":
        """Index a file and resolve its column map.

        Raises:
            DataError: there is no such file, or the map does not fit.
        """
        if not path.is_file():
            raise DataError(f"no file {path}")
        lines: list[tuple[int, int]] = []
        keys: dict[str, None] = {}
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    lines.append((number, offset))
                    keys |= dict.fromkeys(_parse(line)[0])
                offset += len(line)
        if not lines:
            raise DataError(f"{path} holds no task")
        return cls(path, resolve_columns(mapping, keys, str(path)), tuple(lines))

    def __iter__(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            for (number, _), line in zip(self.lines, filter(bytes.strip, file), strict=False):
                yield self._record(number, line)

    def record(self, index: int) -> Record:
        """Return the task of one line."""
        number, offset = self.lines[index]
        with self.path.open("rb") as file:
            file.seek(offset)
            return self._record(number, file.readline())

    def _record(self, number: int, line: bytes) -> Record:
        row, fault = _parse(line)
        values = {field: row.get(key) for field, key in self.columns.items()}
        task_id, unidentified = identity(values.get("task_id"), f"{printable(self.path.stem)}-{number:06d}")
        return Record(
            place=f"{self.path}, line {number}",
            task_id=task_id,
            values=values,
            folder=self.path.parent,
            fault=fault or unidentified,
        )


def _parse(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return a line's object, and what is wrong if it is none: one broken line need not spoil the file."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return {}, f"the line is not JSON: {error}"
    if not isinstance(row, dict):
        return {}, f"the line holds no object but a {type(row).__name__}"
    return row, None
