"""From records to tasks: what makes a record usable, and the set of those that are."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import overload

from rc_grpo.config import TaskSource
from rc_grpo.data.errors import DataError, printable
from rc_grpo.data.masks import canonical_mask, mask_of
from rc_grpo.data.picture import Picture, opaque, picture
from rc_grpo.data.record import Reader, Record
from rc_grpo.data.text import read_kind, read_text
from rc_grpo.messages import EditKind, EditTask

logger = logging.getLogger(__name__)

_KINDS: dict[str, EditKind] = {"add": "add", "remove": "remove", "replace": "replace"}
_CHUNK = 64
"""Records checked at a time; bounds the memory where a record brings its images along."""

_PROGRESS_S = 5.0
_WAY_OUT = "Mend the data, or set on_bad_task: skip to leave such tasks out"


@dataclass(frozen=True)
class Refusal:
    """A task that is unusable, why, and where it stands (file and row)."""

    task_id: str
    reason: str
    place: str


@dataclass(frozen=True, eq=False)
class TaskSet(Sequence[EditTask]):
    """The usable tasks of a data set, in its order. A task's images are read when it is asked for; a slice reads none.

    Attributes:
        task: returns the task of a row.
        rows: the rows that are usable.
        row_of: task id -> row.
        refused: the tasks that were left out (``on_bad_task: skip``).
    """

    task: Callable[[int], EditTask]
    rows: Sequence[int]
    row_of: Mapping[str, int]
    refused: tuple[Refusal, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> EditTask: ...

    @overload
    def __getitem__(self, index: slice) -> "TaskSet": ...

    def __getitem__(self, index: int | slice) -> "EditTask | TaskSet":
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        return self.task(self.rows[index])

    def find(self, task_id: str) -> EditTask | None:
        """Return the task of an id, or None where there is none (a refused one is none)."""
        row = self.row_of.get(task_id)
        return self.task(row) if row is not None and row in self.rows else None

    def __repr__(self) -> str:
        return f"TaskSet({len(self)} tasks, {len(self.refused)} refused)"


@dataclass(frozen=True)
class _Opener:
    """Reads the task of a row. A class, not a closure, so that a task set can be pickled."""

    reader: Reader
    source: TaskSource

    def __call__(self, row: int) -> EditTask:
        record = self.reader.record(row)
        try:
            return _open(record, self.source)
        except ValueError as error:
            raise DataError(
                f"task {record.task_id!r} ({record.place}): {error}. This shows only now that the image is decoded, "
                "or the file has changed since the data were loaded"
            ) from error


def checked(reader: Reader, source: TaskSource, where: str) -> TaskSet:
    """Check every record (its mask in full, its images by their headers) and return the set of usable tasks.

    Raises:
        DataError: a record is unusable and ``on_bad_task`` is ``fail``; two share an id; none is usable.
    """
    rows: list[int] = []
    refused: list[Refusal] = []
    places: dict[str, str] = {}
    progress = _Progress(where)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)), "check-data") as pool:
        for row, (record, reason) in enumerate(_verdicts(reader, source, pool)):
            if reason is not None:
                if source.on_bad_task == "fail":
                    raise DataError(f"task {record.task_id!r} ({record.place}): {reason}. {_WAY_OUT}")
                refused.append(Refusal(record.task_id, printable(reason), printable(record.place)))
            else:
                _claim(places, record)
                rows.append(row)
            progress.report(row + 1, len(refused))
            if len(rows) == source.limit:
                break
    if refused:
        first = refused[0]
        logger.warning(
            "%s: left out %d of %d tasks, the first being %r: %s",
            *(where, len(refused), len(rows) + len(refused), first.task_id, first.reason),
        )
    if not rows:
        reason = f": all {len(refused)} tasks are unusable, the first because {refused[0].reason}" if refused else ""
        raise DataError(f"{where} holds no task{reason}")
    return TaskSet(_Opener(reader, source), tuple(rows), dict(zip(places, rows, strict=True)), tuple(refused))


@dataclass(frozen=True)
class _Words:
    """The texts of a record."""

    instruction: str
    caption: str | None
    kind: EditKind

    @classmethod
    def of(cls, record: Record) -> "_Words":
        """Read them; raise ValueError with the reason if one is none."""
        instruction = read_text(record.values.get("instruction"), "instruction")
        if instruction is None:
            raise ValueError("the instruction is empty")
        kind = (read_kind(record.values.get("kind")) or "").lower()
        return cls(instruction, read_text(record.values.get("caption"), "caption"), _KINDS.get(kind, "other"))


def _verdicts(reader: Reader, source: TaskSource, pool: ThreadPoolExecutor) -> Iterator[tuple[Record, str | None]]:
    records = iter(reader)
    # In chunks, as the pool's own map would take in every record before it gives out the first verdict.
    while chunk := list(islice(records, _CHUNK)):
        yield from zip(chunk, pool.map(lambda record: _objection(record, source), chunk), strict=True)


def _claim(places: dict[str, str], record: Record) -> None:
    """Note a task's id. Seeds and records go by it, so that two tasks of one id are an error that no skip mends."""
    if other := places.get(record.task_id):
        raise DataError(
            f"two tasks have the id {record.task_id!r}: {other} and {record.place}. "
            "Make the ids unique, or map no column to task_id to have them derived from file and row"
        )
    places[record.task_id] = record.place


def _objection(record: Record, source: TaskSource) -> str | None:
    """Return why a record is unusable, or None if it is not."""
    try:
        _, image, _ = _parts(record, source)
        image.check()
        if target := picture(record.values.get("target"), record.folder, "target"):
            target.check()
    except ValueError as error:
        return str(error)
    return None


def _parts(record: Record, source: TaskSource) -> tuple["_Words", Picture, bytes]:
    """Return a record's texts, source image and canonical mask; raise ValueError with the reason if it is unusable."""
    if record.fault is not None:
        raise ValueError(record.fault)
    words = _Words.of(record)
    image = picture(record.values.get("source"), record.folder, "source")
    if image is None:
        raise ValueError("there is no source image")
    mask = mask_of(record.values.get("mask"), record.folder)
    return (
        words,
        image,
        canonical_mask(mask, image, source.mask_format, invert=source.invert_mask, stretch=record.stretch_mask),
    )


def _open(record: Record, source: TaskSource) -> EditTask:
    words, image, mask = _parts(record, source)
    decoded = image.decode()
    target = picture(record.values.get("target"), record.folder, "target")
    if target:
        target.decode()
    alpha_is_mask = mask_of(record.values.get("mask"), record.folder) is None
    return EditTask(
        task_id=record.task_id,
        kind=words.kind,
        # The editor flattens transparency on white. Where it only marks the region, that would be a hole to edit.
        source=opaque(decoded) if alpha_is_mask else image.read(),
        instruction=words.instruction,
        mask=mask,
        target=target.read() if target else None,
        caption=words.caption,
    )


class _Progress:
    """Says every few seconds how far the check is; a small set is done before the first time."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._due = time.monotonic() + _PROGRESS_S

    def report(self, done: int, refused: int) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _PROGRESS_S
            logger.info("%s: checked %d tasks, %d of them unusable", self._where, done, refused)
