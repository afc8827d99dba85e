"""JSON as data files hold it: what is broken in it, where, and what the file is if it is something else."""

import json
from pathlib import Path
from typing import Any

from rc_grpo.data.errors import DataError, reading, shortened

BOM = b"\xef\xbb\xbf"

_KINDS = (
    (b"\xff\xfe", "is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\xfe\xff", "is UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)"),
    (b"\x00\x00\xfe\xff", "is UTF-32 text; save it as UTF-8 (iconv -f UTF-32 -t UTF-8)"),
    (b"PAR1", "is a parquet file; set format: parquet"),
    (b"\x1f\x8b", "is compressed (gzip); unpack it first"),
    (b"(\xb5/\xfd", "is compressed (zstandard); unpack it first"),
    (b"PK\x03\x04", "is a zip archive; unpack it first"),
)


def parse(data: bytes | str) -> Any:
    """Return the value of one JSON text.

    Raises:
        ValueError: it is none, or an object has a key twice; one short line that says what and at which column.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        return json.loads(text, object_pairs_hook=_each_key_once)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"not UTF-8 (byte 0x{error.object[error.start]:02x} at column {error.start + 1}); save the file as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column" if error.lineno > 1 else "column"
        raise ValueError(f"not JSON: {error.msg} at {where} {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not JSON that is read: it is nested too deeply") from error


def sniff(path: Path) -> bool:
    """Tell whether a text file starts with a byte order mark, which is no part of its first line.

    Raises:
        DataError: the file is of another kind than UTF-8 text, and which; or it cannot be read.
    """
    with reading(path), path.open("rb") as file:
        head = file.read(64)
    for start, kind in _KINDS:
        if head.startswith(start):
            raise DataError(f"{path} {kind}")
    if b"\0" in head:
        raise DataError(f"{path} is no UTF-8 text: it begins with {shortened(head)}. If it is UTF-16, save it as UTF-8")
    return head.startswith(BOM)


def refuse_one_value(path: Path) -> None:
    """Refuse a file that is one JSON value over all its lines, where one value a line is wanted.

    Raises:
        DataError: it is, with the way to convert it.
    """
    with reading(path):
        data = path.read_bytes()
    try:
        value = parse(data.removeprefix(BOM))
    except ValueError:
        return
    if isinstance(value, list):
        raise DataError(
            f"{path} is one JSON array, and JSON lines are wanted: one object a line. "
            f"Convert it: jq -c '.[]' {path.name} > {path.stem}.jsonl"
        )
    if isinstance(value, dict):
        raise DataError(
            f"{path} is one JSON object over several lines, and JSON lines are wanted: one object a line. If the tasks "
            f"are in one of its lists, convert it: jq -c '.KEY[]' {path.name} > {path.stem}.jsonl"
        )


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"ambiguous: the key {shortened(twice)} stands twice in one object; keep one")
    return found
