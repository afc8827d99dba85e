"""Tasks from parquet: a file or a folder of them, images as Hugging Face's ``{bytes, path}``, binary or paths."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rc_grpo.data import compbench
from rc_grpo.data.columns import resolve_columns
from rc_grpo.data.errors import DataError
from rc_grpo.data.record import Record, text

_BATCH = 16
"""Rows in memory at a time while everything is checked."""

_KEEP_BYTES = 256 << 20
"""A row group up to this size stays in memory until another is asked for; a larger one is streamed to the row."""


@dataclass(frozen=True)
class Parquet:
    """Reader of one or several files with the same columns.

    Attributes:
        root: the file, or the folder of all.
        files: in order of their names.
        ends: number of rows up to and including each file.
        columns: field -> column.
        is_benchmark: these are CompBench's files from the hub.
    """

    root: Path
    files: tuple[Path, ...]
    ends: tuple[int, ...]
    columns: Mapping[str, str]
    is_benchmark: bool

    @classmethod
    def open(cls, path: Path, mapping: Mapping[str, str]) -> "Parquet":
        """Read the files' footers and resolve the column map.

        Raises:
            DataError: there is no parquet at ``path``, a file is broken, or the map does not fit.
        """
        files = tuple(sorted(path.rglob("*.parquet"))) if path.is_dir() else (path,)
        if not files or not path.exists():
            raise DataError(f"no parquet file at {path}")
        counts: list[int] = []
        columns: dict[str, str] = {}
        benchmark = any(compbench.is_hub_data(_names(file)) for file in files)
        mapping = compbench.HUB_COLUMNS | dict(mapping) if benchmark else mapping
        for file in files:
            found = resolve_columns(mapping, _names(file), str(file))
            if columns and found != columns:
                raise DataError(f"{file} has other columns than {files[0]}: {found} against {columns}")
            columns = found
            counts.append(pq.read_metadata(file).num_rows)
        return cls(path, files, tuple(accumulate(counts)), columns, benchmark)

    def __iter__(self) -> Iterator[Record]:
        # The target is left out: nothing is checked about it that would be worth reading it.
        columns = [column for field, column in self.columns.items() if field != "target"]
        for file in self.files:
            row = 0
            with pq.ParquetFile(file, pre_buffer=False) as parquet:
                for batch in parquet.iter_batches(_BATCH, columns=columns, use_threads=False):
                    for cells in batch.to_pylist():
                        yield self._record(file, row, cells)
                        row += 1

    def record(self, index: int) -> Record:
        """Return the task of one row, counted over all files."""
        number = bisect_right(self.ends, index)
        row = index - (self.ends[number - 1] if number else 0)
        file = self.files[number]
        return self._record(file, row, _cells(file, file.stat().st_mtime_ns, row, tuple(set(self.columns.values()))))

    def _record(self, file: Path, row: int, cells: Mapping[str, Any]) -> Record:
        values = {field: cells.get(column) for field, column in self.columns.items()}
        name = file.relative_to(self.root).as_posix() if file != self.root else file.name
        task_id = text(values.get("task_id"))
        fault = None
        if self.is_benchmark and task_id and self.columns["task_id"] == compbench.HUB_COLUMNS["task_id"]:
            family = text(values.get("kind")) or "?"
            # Of another family, the same path is another task.
            task_id = compbench.task_id(family, task_id)
            if family not in compbench.FAMILIES:
                fault = f"CompBench's family {family!r} is not evaluated, only {', '.join(compbench.FAMILIES)} are"
        return Record(
            place=f"{file}, row {row}",
            task_id=task_id or f"{name.removesuffix('.parquet')}-{row:06d}",
            values=values,
            folder=file.parent,
            fault=fault,
            stretch_mask=self.is_benchmark,
        )


def _names(file: Path) -> list[str]:
    try:
        names: list[str] = pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a readable parquet file: {error}") from error
    return names


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
                    return _only(batch.slice(row, 1).to_pylist())
                row -= batch.num_rows
    return _only(_row_group(file, version, group, columns).slice(row, 1).to_pylist())


@lru_cache(maxsize=1)
def _row_group(file: Path, version: int, group: int, columns: tuple[str, ...]) -> pa.Table:
    """Return a row group; the last one is kept, as tasks in order share it. ``version`` tells a changed file."""
    with pq.ParquetFile(file, pre_buffer=False) as parquet:
        return parquet.read_row_group(group, columns=list(columns), use_threads=False)


def _only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = rows
    return row
