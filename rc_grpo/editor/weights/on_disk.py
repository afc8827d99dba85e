"""Whether the files of a model's weights are whole: safetensors alone, none missing, none cut off.

A library takes what lies in a folder. A shard that a full disk or a half-finished copy cut off at best fails after
minutes of loading, on a GPU; so the files are looked at before anything is started on them. Their headers are read
alone, so that this takes milliseconds however large the model is.
"""

import json
from pathlib import Path
from typing import Any

from rc_grpo.storable import storable

SAFETENSORS, INDEX = ".safetensors", ".safetensors.index.json"
WEIGHTS, WEIGHTS_INDEX = f"model{SAFETENSORS}", f"model{INDEX}"
"""Of a model of transformers, in one file or in several."""

AGAIN = "save or fetch it anew"
"""The way out where a file is not whole."""

_HEADER_LIMIT = 100_000_000
"""safetensors' own bound on a header in bytes; more than that is not a header."""
_LONGEST_NAME = 255
"""Bytes that a file system takes."""

_OF_JSON = (ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError)
"""What JSON raises that is none, is deeper than a parser goes, or holds something else."""


class ModelFilesError(ValueError):
    """Files of a model cannot be used as they are; the message names one, and whoever looked says whose they are."""


def read_json(path: Path) -> Any:
    """Read a JSON file of a model.

    Raises:
        ModelFilesError: it is none.
        OSError: it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{path} is no JSON, or is cut off; {AGAIN}") from error


def check_weights(folder: Path, stem: str = "model") -> list[str]:
    """Check the weight files that a model's folder must have.

    Args:
        folder: of one model, as ``save_pretrained`` writes it.
        stem: of its files: ``model`` in transformers, ``diffusion_pytorch_model`` in diffusers.

    Returns:
        Their names, sorted.

    Raises:
        ModelFilesError: there are neither safetensors nor an index of them, the index cannot be read or names a tensor
            that its file does not hold, or a file is as `check_safetensors` says.
    """
    whole, index = folder / f"{stem}{SAFETENSORS}", folder / f"{stem}{INDEX}"
    if not index.is_file():
        if not whole.is_file():
            raise ModelFilesError(f"{folder} has no {whole.name} and no {index.name}")
        check_safetensors(whole)
        return [whole.name]
    places = _weight_map(index)
    held = {name: check_safetensors(folder / name) for name in sorted(set(places.values()))}
    for tensor, name in places.items():
        if tensor not in held[name]:
            raise ModelFilesError(f"{index} has {storable(tensor, 200)} in {name}, which does not hold it")
    return list(held)


def _weight_map(index: Path) -> dict[str, str]:
    """Return the file of every tensor that an index names.

    Raises:
        ModelFilesError: it cannot be read as one.
    """
    try:
        places = dict(json.loads(index.read_bytes())["weight_map"])
        if not places or not all(map(_is_a_name, places.values())):
            raise ValueError("no names of files beside it")
        return places
    except _OF_JSON as error:
        raise ModelFilesError(f"{index} is not an index of safetensors") from error


def _is_a_name(name: str) -> bool:
    return name.isprintable() and name == Path(name).name and len(name.encode()) <= _LONGEST_NAME


def check_safetensors(path: Path) -> frozenset[str]:
    """Compare a safetensors file's length with what its header says.

    Returns:
        The names of its tensors.

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
        ends = {name: entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"}
        expected = 8 + length + max(ends.values(), default=0)
    except _OF_JSON as error:
        raise ModelFilesError(f"{path} is not safetensors, or is cut off") from error
    if size != expected:
        raise ModelFilesError(f"{path} has {size} bytes, its header says {expected}")
    return frozenset(ends)
