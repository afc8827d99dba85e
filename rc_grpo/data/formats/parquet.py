"""Tasks from parquet: a file or several, images as Hugging Face's ``{bytes, path}``, binary or paths."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rc_grpo.data.errors import DataError, printable
from rc_grpo.data.formats import compbench
from rc_grpo.data.formats.columns import Columns, resolve_columns
from rc_grpo.data.formats.parquet_files import parquet_files
from rc_grpo.data.record import Record
from rc_grpo.data.text import identity, readable

BENCHMARK_MARK = b"rc_grpo.benchmark"
"""Key of the schema's metadata in files that hold the benchmark's tasks under our names."""

_BATCH = 16
"""Rows in memory at a time while everything is checked."""

_KEEP_BYTES = 256 << 20
"""A row group up to this size stays in memory until another is asked for; a larger one is streamed to the row."""


@dataclass(frozen=True)
class Parquet:
    """Reader of one or several files with the same columns.

    Attributes:
        root: the file, or the folder of all, to which their names are relative.
        files: in order of their names.
        ends: number of rows up to and including each file.
        columns: which has which field.
        is_benchmark: these are CompBench's files from the hub.
        has_benchmark: they are, or hold its tasks under other names, as `rc-grpo masks` leaves them.
    """

    root: Path
    files: tuple[Path, ...]
    ends: tuple[int, ...]
    columns: Columns
    is_benchmark: bool
    has_benchmark: bool

    @classmethod
    def open(cls, path: Path, mapping: Mapping[str, str]) -> "Parquet":
        """Read the files' footers and resolve the column map.

        Raises:
            DataError: there is no parquet at ``path``, or that of several splits, a file is broken, or the map does not
                fit.
        """
        root, files = parquet_files(path)
        counts: list[int] = []
        columns: Columns | None = None
        benchmark = any(compbench.is_hub_data(_names(file)) for file in files)
        mapping = compbench.HUB_COLUMNS | dict(mapping) if benchmark else mapping
        for file in files:
            found = resolve_columns(mapping, _names(file), str(file))
            if columns is not None and found != columns:
                raise DataError(f"{file} has other columns than {files[0]}: {found.of} against {columns.of}")
            columns = found
            with _reading(file):
                counts.append(pq.read_metadata(file).num_rows)
        assert columns is not None
        marked = benchmark or any(_is_marked(file) for file in files)
        return cls(root, files, tuple(accumulate(counts)), columns, benchmark, marked)

    def __len__(self) -> int:
        return self.ends[-1]

    def __iter__(self) -> Iterator[Record]:
        columns = list(set(self.columns.of.values()))
        for file in self.files:
            row = 0
            with _reading(file), pq.ParquetFile(file, pre_buffer=False) as parquet:
                for batch in parquet.iter_batches(_BATCH, columns=columns, use_threads=False):
                    for cells in _as_python(batch):
                        yield self._record(file, row, cells)
                        row += 1

    def record(self, index: int) -> Record:
        """Return the task of one row, counted over all files."""
        number = bisect_right(self.ends, index)
        row = index - (self.ends[number - 1] if number else 0)
        file = self.files[number]
        with _reading(file):
            cells = _cells(file, file.stat().st_mtime_ns, row, tuple(set(self.columns.of.values())))
        return self._record(file, row, cells)

    def _record(self, file: Path, row: int, cells: Mapping[str, Any]) -> Record:
        values, unfit = self.columns.values(cells)
        name = file.relative_to(self.root).as_posix() if file != self.root else file.name
        derived = f"{printable(name).removesuffix('.parquet')}-{row:06d}"
        task_id, fault = identity(values.get("task_id"), derived)
        benchmarks = self.is_benchmark and self.columns.of["task_id"] == compbench.HUB_COLUMNS["task_id"]
        if benchmarks and task_id != derived:
            family = readable(values.get("kind")) or "?"
            # Of another family, the same path is another task.
            task_id = compbench.task_id(family, task_id)
            if family not in compbench.FAMILIES:
                fault = f"CompBench's family {family!r} is not evaluated, only {', '.join(compbench.FAMILIES)} are"
        return Record(
            place=f"{file}, row {row}",
            task_id=task_id,
            values=values,
            folder=file.parent,
            fault=fault or unfit,
            stretch_mask=self.is_benchmark,
        )


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    # Names of columns may be no text.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not a readable parquet file: {error}") from error


def _names(file: Path) -> list[str]:
    with _reading(file):
        names: list[str] = pq.read_schema(file).names
    return names


def _is_marked(file: Path) -> bool:
    with _reading(file):
        return BENCHMARK_MARK in (pq.read_schema(file).metadata or {})


class _Unreadable:
    """What stands for a cell that is no value in Python, such as text of another encoding: no field takes it."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __repr__(self) -> str:
        return f"unreadable: {self._error}"


def _as_python(rows: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return rows as Python's values. A cell that is none spoils its own row alone."""
    try:
        found: list[dict[str, Any]] = rows.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        names = rows.schema.names
        found = [{name: _value(rows.column(name)[row]) for name in names} for row in range(rows.num_rows)]
    return found


def _value(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return _Unreadable(error)


def _cells(file: Path, version: int, row: int, columns: tuple[str, ...]) -> dict[str, Any]:
    """Return a row's cells. Parquet is read by row groups; those of a size are gone through in steps instead."""
    with pq.ParquetFile(file, pre_buffer=False) as parquet:
        group = 0
        while row >= parquet.metadata.row_group(group).num_rows:
            row -= parquet.metadata.row_group(group).num_rows
            group += 1
        if parquet.metadata.row_group(group).total_byte_size > _KEEP_BYTES:
            for batch in parquet.iter_batches(_BATCH, row_groups=[group], columns=list(columns), use_threads=False):
                if row < batch.num_rows:
                    return _only(_as_python(batch.slice(row, 1)))
                row -= batch.num_rows
    return _only(_as_python(_row_group(file, version, group, columns).slice(row, 1)))


@lru_cache(maxsize=1)
def _row_group(file: Path, version: int, group: int, columns: tuple[str, ...]) -> pa.Table:
    """Return a row group; the last one is kept, as tasks in order share it. ``version`` tells a changed file."""
    with pq.ParquetFile(file, pre_buffer=False) as parquet:
        return parquet.read_row_group(group, columns=list(columns), use_threads=False)


def _only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = rows
    return row
