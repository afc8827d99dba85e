"""Reads what W&B wrote in offline mode: protobuf records in LevelDB's log format (its library has no reader)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto.wandb_internal_pb2 import Record

BLOCK, FILE_HEADER, HEADER = 32768, 7, 7
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Record]:
    data, position, whole = path.read_bytes(), FILE_HEADER, b""
    while position + HEADER <= len(data):
        if BLOCK - position % BLOCK < HEADER:
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        whole += data[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (FULL, LAST):
            yield Record.FromString(whole)
            whole = b""


def starts(folder: Path) -> list[list[Record]]:
    """Return the records of each start of a run, in order; when W&B's service has ended, and so has written all."""
    wandb.teardown()
    return [list(records(path)) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def rows(start: list[Record]) -> list[dict[str, Any]]:
    """Return what was logged."""
    logged = [record.history.item for record in start if record.WhichOneof("record_type") == "history"]
    return [{item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in row} for row in logged]
