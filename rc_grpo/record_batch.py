"""Arrays as columns of an Arrow record batch, and what belongs to all of its rows as a header in its metadata."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def as_rows(array: NDArray[Any]) -> pa.FixedSizeListArray:
    """Return an array ``[rows, ...]`` as a column, whose buffer it shares if it is contiguous."""
    flat = np.ascontiguousarray(array).reshape(len(array), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])


def from_rows(batch: pa.RecordBatch, name: str, shapes: Mapping[str, list[int]]) -> Any:
    """Return a column of `as_rows` as a read-only view ``[rows, *shapes[name]]``, or None where it has no shape."""
    if name not in shapes:
        return None
    return batch.column(name).flatten().to_numpy().reshape(batch.num_rows, *shapes[name])


def with_header(columns: Mapping[str, pa.Array], key: bytes, header: Mapping[str, Any]) -> pa.RecordBatch:
    """Return a batch of these columns with a header, as JSON takes it, under ``key`` of its metadata."""
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return batch.replace_schema_metadata({key: json.dumps(header).encode()})


def read_header(batch: pa.RecordBatch, key: bytes) -> dict[str, Any]:
    """Return the header of a batch.

    Raises:
        ValueError: it has none under ``key``: it is another kind of batch.
    """
    metadata = batch.schema.metadata or {}
    if key not in metadata:
        raise ValueError(
            f"not an RC-GRPO record batch: no {key.decode()!r} in its metadata (columns {batch.schema.names})"
        )
    header: dict[str, Any] = json.loads(metadata[key])
    return header
