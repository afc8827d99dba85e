"""What a run was trained on, in digests: whether the data are the same now, and which tasks are not."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Any, BinaryIO, Self

from rc_grpo.data.masks import mask_of
from rc_grpo.data.picture import Picture, picture, references_of
from rc_grpo.data.record import Record
from rc_grpo.data.rle import Rle
from rc_grpo.data.tasks import TaskSet

PARTS = ("text", "source", "mask", "target")
"""Of a task, in the order of its digest."""

REFERENCES = "references"
"""A part more, of a task that has some."""

_WHOLE = 1 << 20
"""Bytes up to which a file is read whole; of a longer one, its length and so many bytes in `_BLOCKS` places are."""

_BLOCKS = 16
_CHUNK = 64
_NAMED = 5


@dataclass(frozen=True)
class Fingerprint:
    """Digests of a data set.

    Attributes:
        origin: what generates the tasks, with its parameters; empty where they are read from files.
        tasks: id -> digests of its `PARTS` and `REFERENCES`, joined by dashes, in the order of the set; empty where
            generated.
    """

    origin: str
    tasks: Mapping[str, str]

    @classmethod
    def of(cls, tasks: TaskSet) -> Self:
        """Take the fingerprint of a data set: texts and files, wherever the files lie and whenever they were written.

        A file up to 1 MiB is read whole. Of a larger one the length and 16 blocks of 64 KiB are, from its first to its
        last bytes, which bounds the time at any size of image: any other encoding of an image shows, and a byte
        altered in place between the blocks does not.

        Raises:
            rc_grpo.data.DataError: a file has gone since the set was loaded.
        """
        digests: dict[str, str] = {}
        with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1)), "fingerprint") as pool:
            records = tasks.records()
            while chunk := list(islice(records, _CHUNK)):
                digests |= zip((record.task_id for record in chunk), pool.map(digest_of, chunk), strict=True)
        return cls(tasks.origin, digests)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read `as_json`'s value back, which `deploy.records.folder` has compared with its form."""
        return cls(value["origin"], value["tasks"])

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with one digest of all."""
        whole = hashlib.sha256(json.dumps([self.origin, *self.tasks.items()]).encode()).hexdigest()
        return {"digest": whole, "origin": self.origin, "tasks": dict(self.tasks)}

    def changes(self, now: "Fingerprint") -> str | None:
        """Return in words what is different now, task by task, or None where nothing is."""
        if self.origin != now.origin:
            return f"it was {self.origin or 'read from files'} and is {now.origin or 'read from files'}"
        added = [repr(task_id) for task_id in now.tasks if task_id not in self.tasks]
        removed = [repr(task_id) for task_id in self.tasks if task_id not in now.tasks]
        changed = [
            f"{task_id!r}: {', '.join(parts)}"
            for task_id, digest in self.tasks.items()
            if task_id in now.tasks and (parts := changed_parts(digest, now.tasks[task_id]))
        ]
        kinds = [("added", added), ("removed", removed), ("changed", changed)]
        said = [f"{len(tasks)} {kind} ({_some(tasks)})" for kind, tasks in kinds if tasks]
        if not said and list(self.tasks) != list(now.tasks):
            return "the order of the tasks"
        return ", ".join(said) or None


def changed_parts(before: str, now: str) -> list[str]:
    """Return the names of the parts in which two digests of one task differ."""
    pairs = zip_longest(before.split("-"), now.split("-"))
    return [part for part, (one, other) in zip((*PARTS, REFERENCES), pairs, strict=False) if one != other]


def digest_of(record: Record) -> str:
    """Return the digests of a usable record's `PARTS`, and of its references where it has some, joined by dashes.

    Raises:
        ValueError: a file has gone.
    """
    values, folder = record.values, record.folder
    told = [record.task_id, *(_plain(values.get(name)) for name in ("kind", "instruction", "caption"))]
    source, target = (picture(values.get(role), folder, role) for role in ("source", "target"))
    mask = mask_of(values.get("mask"), folder)
    parts = [json.dumps(told).encode(), _content(source), _content(mask), _content(target)]
    if references := references_of(values.get("references"), folder):
        parts.append(b"".join(hashlib.sha256(_content(reference)).digest() for reference in references))
    return "-".join(hashlib.sha256(part).hexdigest()[:12] for part in parts)


def _plain(value: Any) -> str:
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value or "").strip()


def _content(part: Picture | Rle | None) -> bytes:
    if part is None:
        return b""
    if isinstance(part, Rle):
        return repr(part).encode()
    with part.open() as stream:
        return b"".join(sampled(stream))


def sampled(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what of a file is digested: its length, and all of it or 16 blocks (see `Fingerprint.of`)."""
    length = stream.seek(0, os.SEEK_END)
    yield f"{length}:".encode()
    block = _WHOLE // _BLOCKS
    starts = [0] if length <= _WHOLE else [(length - block) * place // (_BLOCKS - 1) for place in range(_BLOCKS)]
    for start in starts:
        stream.seek(start)
        yield stream.read(_WHOLE if length <= _WHOLE else block)


def _some(names: Sequence[str]) -> str:
    return "; ".join(names[:_NAMED]) + ("; ..." if len(names) > _NAMED else "")
