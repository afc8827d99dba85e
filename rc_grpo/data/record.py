"""What a reader hands on: one task as its file holds it, before anybody has judged it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Record:
    """One row of a data set.

    Attributes:
        place: where it stands, in words for an error message.
        task_id: as in the file, or derived from file and row.
        values: raw values by our field names; a missing field is absent or None.
        folder: what relative paths among the values are relative to, and must not leave.
        fault: why nothing could be read here, if so.
        stretch_mask: the data set's own practice is to scale a mask to its image.
    """

    place: str
    task_id: str
    values: Mapping[str, Any]
    folder: Path
    fault: str | None = None
    stretch_mask: bool = False


class Reader(Protocol):
    """A data set as a sequence of records. Immutable and picklable: files are opened when something is read."""

    def __len__(self) -> int:
        """Return how many records there are."""
        ...

    def __iter__(self) -> Iterator[Record]:
        """Yield every record in order, complete."""
        ...

    def record(self, index: int) -> Record:
        """Return one record, complete."""
        ...
