"""Tasks from JSON lines: one object a line, images as paths relative to the file's folder."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rc_grpo.data.errors import DataError, printable, reading
from rc_grpo.data.formats.columns import Columns, resolve_columns
from rc_grpo.data.formats.json_text import BOM, parse, refuse_one_value, sniff
from rc_grpo.data.record import Record
from rc_grpo.data.text import identity


@dataclass(frozen=True)
class JsonLines:
    """Reader of one file.

    Attributes:
        path: the file.
        columns: which key has which field.
        lines: number (from 1) and byte offset of every line that is not blank. The lines themselves stay in the file: a
            mask as run lengths makes them long.
    """

    path: Path
    columns: Columns
    lines: tuple[tuple[int, int], ...]

    @classmethod
    def open(cls, path: Path, mapping: Mapping[str, str]) -> "JsonLines":
        """Index a file and resolve its column map.

        Raises:
            DataError: there is no such file, or the map does not fit.
        """
        with reading(path):
            if not path.is_file():
                raise DataError(f"no file {path}" + (": it is a folder" if path.is_dir() else ""))
        start = len(BOM) if sniff(path) else 0
        lines: list[tuple[int, int]] = []
        keys: dict[str, None] = {}
        faults: list[tuple[int, str]] = []
        with reading(path), path.open("rb") as file:
            offset = file.seek(start)
            for number, line in enumerate(file, 1):
                if line.strip():
                    lines.append((number, offset))
                    row, fault = _parse(line)
                    keys |= dict.fromkeys(row)
                    if fault is not None:
                        if len(lines) == 1:
                            refuse_one_value(path)
                        faults.append((number, fault))
                offset += len(line)
        if not lines:
            raise DataError(f"{path} holds no task: it is empty")
        # Where no line is an object there is no key either, and each line's own fault is what is wrong.
        columns = _columns(mapping, keys, path, faults) if len(faults) < len(lines) else Columns({})
        return cls(path, columns, tuple(lines))

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Record]:
        with reading(self.path), self.path.open("rb") as file:
            for number, offset in self.lines:
                file.seek(offset)
                yield self._record(number, file.readline())

    def record(self, index: int) -> Record:
        """Return the task of one line."""
        number, offset = self.lines[index]
        with reading(self.path), self.path.open("rb") as file:
            file.seek(offset)
            return self._record(number, file.readline())

    def _record(self, number: int, line: bytes) -> Record:
        row, fault = _parse(line)
        values, unfit = self.columns.values(row)
        task_id, unidentified = identity(values.get("task_id"), f"{printable(self.path.stem)}-{number:06d}")
        return Record(
            place=f"{self.path}, line {number}",
            task_id=task_id,
            values=values,
            folder=self.path.parent,
            fault=fault or unidentified or unfit,
        )


def _columns(mapping: Mapping[str, str], keys: Iterable[str], path: Path, faults: Sequence[tuple[int, str]]) -> Columns:
    try:
        return resolve_columns(mapping, keys, str(path))
    except DataError as error:
        if not faults:
            raise
        number, fault = faults[0]
        raise DataError(f"{error}. Broken lines: {len(faults)}, the first being line {number}: {fault}") from error


def _parse(line: bytes) -> tuple[dict[str, Any], str | None]:
    """Return a line's object, and what is wrong if it is none: one broken line need not spoil the file."""
    try:
        row = parse(line)
    except ValueError as error:
        return {}, f"the line is {error}"
    if not isinstance(row, dict):
        return {}, f"the line holds no object but a {type(row).__name__}"
    return row, None
