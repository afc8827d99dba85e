"""From records to tasks: what makes a record usable, and the set of those that are."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, overload

from rc_grpo.config import TaskSource
from rc_grpo.data.errors import DataError, printable
from rc_grpo.data.masks import canonical_mask, mask_of
from rc_grpo.data.picture import Picture, opaque, picture, references_of
from rc_grpo.data.record import Reader, Record
from rc_grpo.data.refusals import Refusal, in_words
from rc_grpo.data.text import read_kind, read_text
from rc_grpo.messages import EditKind, EditTask

logger = logging.getLogger(__name__)

_KINDS: dict[str, EditKind] = {"add": "add", "remove": "remove", "replace": "replace"}
_CHUNK = 64
"""Records checked at a time; bounds the memory where a record brings its images along."""

Objection = Callable[[str, int], str | None]
"""Returns why an instruction with so many source images is none for an editor, or None where it is one."""

Optional = Literal["target", "caption"]
OPTIONAL: tuple[Optional, ...] = ("target", "caption")
"""What a task may have, and some judges need."""

_PROGRESS_S = 5.0
_UNIQUE = "Make the ids unique, or map no column to task_id to have them derived from file and row"


@dataclass(frozen=True, eq=False)
class TaskSet(Sequence[EditTask]):
    """The usable tasks of a data set, in its order. A task's images are read when it is asked for; a slice reads none.

    Attributes:
        task: returns the task of a row.
        rows: the rows that are usable.
        row_of: task id -> row.
        refused: the tasks that were left out (``on_bad_task: skip``).
        bare: optional field (``target``, ``caption``) -> rows that have none.
        reader: of the files that the tasks are read from; None where they are generated.
        origin: what generates them, with its parameters; empty where they are read.
    """

    task: Callable[[int], EditTask]
    rows: Sequence[int]
    row_of: Mapping[str, int]
    refused: tuple[Refusal, ...] = ()
    bare: Mapping[str, frozenset[int]] = field(default_factory=dict)
    reader: Reader | None = None
    origin: str = ""

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

    def lacking(self, what: Optional) -> tuple[str, ...]:
        """Return the ids of the tasks that have no target, or no caption, in their order; no image is read."""
        bare = self.bare.get(what, frozenset()).intersection(self.rows)
        return tuple(task_id for task_id, row in self.row_of.items() if row in bare)

    def records(self) -> Iterator[Record]:
        """Yield the records of the set, in their order; none where the tasks are generated."""
        wanted, last = frozenset(self.rows), max(self.rows, default=-1)
        if self.reader is not None:
            yield from (record for row, record in enumerate(islice(self.reader, last + 1)) if row in wanted)

    def record(self, task_id: str) -> Record | None:
        """Return the record of an id; None where there is none, and where the tasks are generated."""
        row = self.row_of.get(task_id)
        return None if self.reader is None or row is None or row not in self.rows else self.reader.record(row)

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


@dataclass(frozen=True)
class Examined:
    """What came of looking at every record.

    Attributes:
        rows: task id -> row of the usable ones, in order.
        refused: the unusable ones, in order.
        repeated: those whose id another one has. Seeds and records go by it, so that no skip mends them.
        bare: optional field -> rows of the usable ones that have none.
    """

    rows: Mapping[str, int]
    refused: tuple[Refusal, ...]
    repeated: tuple[Refusal, ...]
    bare: Mapping[str, frozenset[int]]

    @property
    def seen(self) -> int:
        """How many records were looked at."""
        return len(self.rows) + len(self.refused) + len(self.repeated)

    def tasks(self, reader: Reader, source: TaskSource) -> TaskSet:
        """Return the usable tasks, to be read from where they were looked at."""
        return TaskSet(_Opener(reader, source), tuple(self.rows.values()), self.rows, self.refused, self.bare, reader)


def examine(reader: Reader, source: TaskSource, where: str, objection: Objection | None = None) -> Examined:
    """Look at every record (its mask in full, its images by their headers) until ``source.limit`` are usable.

    Args:
        reader: of the records.
        source: how they are read.
        where: the data set, for messages.
        objection: returns why the editor cannot take a task, or None; called in this thread alone.

    Raises:
        DataError: the file can be read no further.
    """
    rows: dict[str, int] = {}
    places: dict[str, str] = {}
    refused: list[Refusal] = []
    repeated: list[Refusal] = []
    bare: dict[str, set[int]] = {name: set() for name in OPTIONAL}
    progress = _Progress(where)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)), "check-data") as pool:
        for row, (record, found) in enumerate(_verdicts(reader, source, pool)):
            reason = found
            place = printable(record.place)
            if reason is None and objection is not None:
                reason = objection(Words.of(record).instruction, 1 + len(_references(record)))
            if reason is not None:
                refused.append(Refusal(record.task_id, printable(reason), place))
            elif other := places.get(record.task_id):
                repeated.append(
                    Refusal(
                        record.task_id,
                        f"two tasks have the id {record.task_id!r}: {other} and {place}. {_UNIQUE}",
                        place,
                    )
                )
            else:
                rows[record.task_id] = row
                places[record.task_id] = place
                for name in _lacks(record):
                    bare[name].add(row)
            progress.report(row + 1, len(refused))
            if len(rows) == source.limit:
                break
    return Examined(rows, tuple(refused), tuple(repeated), {name: frozenset(bare[name]) for name in bare})


def checked(reader: Reader, source: TaskSource, where: str, objection: Objection | None = None) -> TaskSet:
    """Check every record and return the set of usable tasks; see `examine`.

    Raises:
        DataError: a record is unusable and ``on_bad_task`` is ``fail``; two share an id; none is usable.
    """
    found = examine(reader, source, where, objection)
    fatal = found.repeated if source.on_bad_task == "skip" else (*found.refused, *found.repeated)
    if fatal:
        alone = len(fatal) == 1 and found.repeated
        raise DataError(fatal[0].reason if alone else in_words(fatal, found.seen, where))
    if refused := found.refused:
        logger.warning(
            "%s: left out %d of %d tasks, the first being %r: %s",
            *(where, len(refused), found.seen, refused[0].task_id, refused[0].reason),
        )
    if not found.rows:
        reason = f": all {len(refused)} tasks are unusable, the first because {refused[0].reason}" if refused else ""
        raise DataError(f"{where} holds no task{reason}")
    return found.tasks(reader, source)


@dataclass(frozen=True)
class Words:
    """The texts of a record."""

    instruction: str
    caption: str | None
    kind: EditKind

    @classmethod
    def of(cls, record: Record) -> "Words":
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


def _objection(record: Record, source: TaskSource) -> str | None:
    """Return why a record is unusable, or None if it is not."""
    try:
        _, image, _ = _parts(record, source)
        image.check()
        if target := picture(record.values.get("target"), record.folder, "target"):
            target.check()
        for reference in _references(record):
            reference.check()
    except ValueError as error:
        return str(error)
    return None


def _references(record: Record) -> tuple[Picture, ...]:
    return references_of(record.values.get("references"), record.folder)


def _lacks(record: Record) -> Iterator[Optional]:
    """Yield the optional fields that a usable record does not have."""
    if picture(record.values.get("target"), record.folder, "target") is None:
        yield "target"
    if read_text(record.values.get("caption"), "caption") is None:
        yield "caption"


def _parts(record: Record, source: TaskSource) -> tuple["Words", Picture, bytes]:
    """Return a record's texts, source image and canonical mask; raise ValueError with the reason if it is unusable."""
    if record.fault is not None:
        raise ValueError(record.fault)
    words = Words.of(record)
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
    references = _references(record)
    for shown in (*references, *([target] if target else ())):
        shown.decode()
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
        references=tuple(reference.read() for reference in references),
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
