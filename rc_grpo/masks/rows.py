"""The tasks of a data set before they have masks, one after the other, whole or refused."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.errors import printable
from rc_grpo.data.fingerprint import digest_of
from rc_grpo.data.formats.parquet import Parquet
from rc_grpo.data.formats.parquet_files import is_pattern
from rc_grpo.data.load import open_reader
from rc_grpo.data.masks import canonical_mask, mask_of
from rc_grpo.data.picture import Picture, opaque, picture, references_of
from rc_grpo.data.record import Reader, Record
from rc_grpo.data.tasks import Words
from rc_grpo.data.text import readable
from rc_grpo.masks.making import Example, NoMaskError
from rc_grpo.messages import EditTask

_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
_BENCHMARK = ("add", "remove", "replace")


@dataclass(frozen=True)
class Refused:
    """A task that gets no mask.

    Attributes:
        task_id: of it.
        place: where it stands, in words.
        rule: one of `rc_grpo.masks.making.RULES`.
        reason: what was found.
    """

    task_id: str
    place: str
    rule: str
    reason: str


@dataclass(frozen=True)
class Rows:
    """A data set whose masks are not asked for.

    Attributes:
        source: where it is from, and how it is read.
        reader: of its records.
        is_benchmark: its tasks are CompBench's, which a copy must go on saying.
    """

    source: TaskSource
    reader: Reader
    is_benchmark: bool

    @classmethod
    def open(cls, source: TaskSource) -> "Rows":
        """Open a data set.

        Raises:
            DataError: there is none, or it is not as described.
        """
        if source.path is None:
            return cls(source, _Generated(source), False)
        reader = open_reader(source, source.path, "evaluate")
        marked = source.format == "compbench" or (isinstance(reader, Parquet) and reader.has_benchmark)
        return cls(source, reader, marked)

    def __len__(self) -> int:
        count = len(self.reader)
        return count if self.source.limit is None else min(count, self.source.limit)

    def after(self, row: int) -> Iterator[Record]:
        """Yield the records from a row on."""
        return islice(self.reader, row, len(self))

    def example(self, record: Record) -> Example:
        """Return a record's task.

        Raises:
            NoMaskError: a text or an image of it is none.
        """
        values, folder = record.values, record.folder
        try:
            if record.fault is not None:
                raise ValueError(record.fault)
            words = Words.of(record)
            source, target = (picture(values.get(role), folder, role) for role in ("source", "target"))
            if source is None:
                raise ValueError("there is no source image")
            source.check()
            references = references_of(values.get("references"), folder)
            for other in (*references, *([] if target is None else [target])):
                other.check()
            source, mask = self._own_mask(record, source)
            return Example(
                record.task_id,
                printable(record.place),
                readable(values.get("kind")) if words.kind == "other" else words.kind,
                words.instruction,
                words.caption,
                readable(values.get("phrase")),
                source,
                target,
                mask,
                digest_of(replace(record, values={**values, "mask": None})),
                references,
            )
        except ValueError as error:
            raise NoMaskError("unreadable", printable(str(error))) from error

    def _own_mask(self, record: Record, source: Picture) -> tuple[Picture, bytes | None]:
        """Return the source, without the alpha that is its mask, and the mask that the task has."""
        form, invert = self.source.mask_format, self.source.invert_mask
        image = source.decode()
        try:
            found = mask_of(record.values.get("mask"), record.folder)
            if found is None and "A" not in image.getbands() and "transparency" not in image.info:
                return source, None
            mask = canonical_mask(found, source, form, invert=invert, stretch=record.stretch_mask)
        except ValueError:
            # What is no mask is made anew, as where there is none.
            return source, None
        return (replace(source, origin=opaque(image)) if found is None else source), mask


def source_of(path: str, columns: dict[str, str], limit: int | None) -> TaskSource:
    """Return how a data set is read, told by its name and what lies there.

    Args:
        path: ``pocket``, a file, or a folder.
        columns: field -> column.
        limit: at most so many rows.

    Raises:
        DataError: nothing there is of a kind that is read.
    """
    if path == "pocket":
        return TaskSource(format="pocket", limit=limit)
    place = Path(path)
    if not place.exists() and not is_pattern(place):
        raise DataError(f"there is nothing at {place}; name a file (.jsonl, .parquet), a folder of parquet, or pocket")
    root = place / "tasks" if (place / "tasks").is_dir() else place
    if place.is_file() or is_pattern(place):
        form = _ENDINGS.get(place.suffix.lower())
    elif any((root / family / "metadata.json").is_file() for family in _BENCHMARK):
        form = "compbench"
    else:
        form = "parquet" if next(place.rglob("*.parquet"), None) else None
    if form is None:
        raise DataError(
            f"{place} is no data set that is read here: name a file that ends in {', '.join(_ENDINGS)}, or a folder of "
            "parquet files or in CompBench's layout"
        )
    return TaskSource.model_validate({"format": form, "path": place, "limit": limit, "columns": columns})


class _Generated:
    """The pocket world's tasks as records."""

    def __init__(self, source: TaskSource) -> None:
        self._tasks = load_tasks(source)

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Record]:
        return (_record(task) for task in self._tasks)

    def record(self, index: int) -> Record:
        return _record(self._tasks[index])


def _record(task: EditTask) -> Record:
    values = {name: getattr(task, name) for name in ("kind", "source", "instruction", "mask", "target", "caption")}
    return Record("the pocket world", task.task_id, values, Path())
