"""The data set that masks are written into: parquet files of some hundred tasks, each whole or not there.

Each file says in its metadata what was asked for, which rows of the source it covers, and which of those were refused:
that is all that is needed to go on after a kill.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rc_grpo.config import ConfigError
from rc_grpo.config.differences import differences
from rc_grpo.data.formats.parquet import BENCHMARK_MARK
from rc_grpo.durable import write_whole
from rc_grpo.masks.rows import Refused

MARK = b"rc_grpo.masks"
ROWS_AT_MOST, BYTES_AT_MOST = 100, 128 << 20
"""Of a file; the rows are also a group of rows, which shuffled reading is fast with."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_SCHEMA = pa.schema(
    [
        ("task_id", pa.string()),
        ("kind", pa.string()),
        ("instruction", pa.string()),
        ("caption", pa.string()),
        ("phrase", pa.string()),
        ("source", _IMAGE),
        ("mask", _IMAGE),
        ("target", _IMAGE),
        ("references", pa.list_(_IMAGE)),
        ("mask_by", pa.string()),
        ("mask_area", pa.float64()),
        ("mask_detail", pa.string()),
        ("source_digest", pa.string()),
    ]
)
"""`rc_grpo.data` reads the first nine by their names; the others say where the mask is from."""

_FEATURES = {
    name: {"_type": "Image"}
    if field.type == _IMAGE
    else {"dtype": "float64" if pa.types.is_floating(field.type) else "string", "_type": "Value"}
    for name, field in ((field.name, field) for field in _SCHEMA)
} | {"references": {"feature": {"_type": "Image"}, "_type": "Sequence"}}


@dataclass(frozen=True)
class Masked:
    """A task with its mask.

    Attributes:
        values: of the columns that `rc_grpo.data` reads; images as their encoded bytes.
        by: the method, or ``given`` for a mask that the data set had.
        area: share of the image.
        detail: what is kept of how it came about.
        digest: of the task's text, sources and target, see `rc_grpo.data.fingerprint.digest_of`.
    """

    values: Mapping[str, Any]
    by: str
    area: float
    detail: Mapping[str, Any]
    digest: str

    @property
    def task_id(self) -> str:
        """The task."""
        return str(self.values["task_id"])

    @property
    def size(self) -> int:
        """Bytes of its images."""
        images = (*(self.values[name] for name in ("source", "mask", "target")), *self.values["references"])
        return sum(len(image or b"") for image in images)

    def as_row(self) -> dict[str, Any]:
        """Return the row of `_SCHEMA`."""
        images = {
            name: None if self.values[name] is None else {"bytes": self.values[name], "path": None}
            for name in ("source", "mask", "target")
        }
        return {
            **self.values,
            **images,
            "references": [{"bytes": image, "path": None} for image in self.values["references"]],
            "mask_by": self.by,
            "mask_area": self.area,
            "mask_detail": json.dumps(self.detail),
            "source_digest": self.digest,
        }


class Parts:
    """The files of one request in their order.

    Args:
        folder: that they are in; made if need be.
        request: what was asked for, for JSON: all that decides what comes out.
        is_benchmark: the tasks are CompBench's, which each file says.

    Raises:
        ConfigError: the folder holds something else, or files of another request.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], *, is_benchmark: bool) -> None:
        self._folder = folder
        self._request = json.loads(json.dumps(request))
        self._is_benchmark = is_benchmark
        self._headers = [self._header(path) for path in self.files]
        if (
            not self._headers
            and folder.is_dir()
            and any(not path.name.startswith(".tasks-") for path in folder.iterdir())
        ):
            raise ConfigError(f"--out {folder} holds files that are not of rc-grpo masks; name a new folder")

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for."""
        return dict(self._request)

    @property
    def files(self) -> list[Path]:
        """The files there are."""
        return sorted(self._folder.glob("tasks-*.parquet"))

    @property
    def done(self) -> int:
        """Rows of the source that are done."""
        return int(self._headers[-1]["rows"][1]) if self._headers else 0

    @property
    def refused(self) -> list[Refused]:
        """The tasks that got no mask, in their order."""
        return [Refused(**item) for header in self._headers for item in header["refused"]]

    def areas(self) -> dict[str, list[float]]:
        """Return the shares that the masks cover, by method."""
        found: dict[str, list[float]] = {}
        for row in self.rows(("mask_by", "mask_area")):
            found.setdefault(row["mask_by"], []).append(row["mask_area"])
        return found

    def ids(self) -> set[str]:
        """Return the ids of the tasks that have masks."""
        return {row["task_id"] for row in self.rows(("task_id",))}

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the tasks that have masks, in their order, with so many columns."""
        for file in self.files:
            yield from pq.read_table(file, columns=list(columns), partitioning=None).to_pylist()

    def write(self, rows: tuple[int, int], masked: Sequence[Masked], refused: Sequence[Refused]) -> None:
        """Write the next file.

        Args:
            rows: of the source that it covers, from and up to.
            masked: those that have masks.
            refused: the others.
        """
        header = {"request": self._request, "rows": list(rows), "refused": [asdict(item) for item in refused]}
        metadata = {
            MARK: json.dumps(header).encode(),
            b"huggingface": json.dumps({"info": {"features": _FEATURES}}).encode(),
        }
        if self._is_benchmark:
            metadata[BENCHMARK_MARK] = b"CompBench"
        table = pa.Table.from_pylist([item.as_row() for item in masked], _SCHEMA).replace_schema_metadata(metadata)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        write_whole(self._folder / f"tasks-{len(self._headers):05d}.parquet", buffer.getvalue())
        self._headers.append(header)

    def _header(self, path: Path) -> dict[str, Any]:
        try:
            header = (pq.read_schema(path).metadata or {}).get(MARK)
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{path} is damaged ({error}); remove it and what comes after it, and go on") from error
        if header is None:
            raise ConfigError(
                f"--out {self._folder} holds {path.name}, which is no file of rc-grpo masks; name another"
            )
        found: dict[str, Any] = json.loads(header)
        if changed := differences(found["request"], self._request):
            said = "; ".join(f"{key} was {was} and is {now}" for key, (was, now) in changed.items())
            raise ConfigError(
                f"--out {self._folder} holds masks that were asked for otherwise ({said}); name another folder, or "
                "remove this one to begin anew"
            )
        return found
