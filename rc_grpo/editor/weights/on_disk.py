"""Whether the files of a model's weights are whole: safetensors alone, none missing, none cut off.

A library takes what lies in a folder. A shard that a full disk or a half-finished copy cut off at best fails after
minutes of loading, on a GPU; so the files are looked at before anything is started on them. Their headers are read
alone, so that this takes milliseconds however large the model is.
"""

import json
from pathlib import Path

SAFETENSORS, INDEX = ".safetensors", ".safetensors.index.json"
WEIGHTS, WEIGHTS_INDEX = f"model{SAFETENSORS}", f"model{INDEX}"
"""Of a model of transformers, in one file or in several."""

_HEADER_LIMIT = 100_000_000
"""safetensors' own bound on a header in bytes; more than that is not a header."""
_LONGEST_NAME = 255
"""Bytes that a file system takes."""

_OF_JSON = (ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError)
"""What JSON raises that is none, is deeper than a parser goes, or holds something else."""


class ModelFilesError(ValueError):
    """Files of a model cannot be used as they are; the message names one, and whoever looked says whose they are."""


def weight_files(folder: Path) -> list[str]:
    """Return the names of the weight files that the folder of a model of transformers must have, sorted.

    Raises:
        ModelFilesError: there are neither safetensors nor an index of them, or the index cannot be read.
    """
    index = folder / WEIGHTS_INDEX
    if index.is_file():
        return shards(index)
    if not (folder / WEIGHTS).is_file():
        raise ModelFilesError(f"{folder} has no {WEIGHTS} and no {WEIGHTS_INDEX}")
    return [WEIGHTS]


def shards(index: Path) -> list[str]:
    """Return the names of the files that an index of safetensors names, sorted.

    Raises:
        ModelFilesError: it cannot be read as one.
    """
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
        if not named or not all(map(_is_a_name, named)):
            raise ValueError("no names of files beside it")
        return sorted(named)
    except _OF_JSON as error:
        raise ModelFilesError(f"{index} is not an index of safetensors") from error


def _is_a_name(name: str) -> bool:
    return name.isprintable() and name == Path(name).name and len(name.encode()) <= _LONGEST_NAME


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's length with what its header says.

    Raises:
        ModelFilesError: it is missing, not safetensors, or of another length.
    """
    if not path.is_file():
        raise ModelFilesError(f"{path} is missing")
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise ValueError("no header")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except _OF_JSON as error:
        raise ModelFilesError(f"{path} is not safetensors, or is cut off") from error
    if size != expected:
        raise ModelFilesError(f"{path} has {size} bytes, its header says {expected}")
