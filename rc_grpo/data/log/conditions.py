"""A task's conditions as safetensors bytes: one cell of a table, or one file, that anything reads."""

import numpy as np
import safetensors.numpy

from rc_grpo.messages import Conditions

_ARRAY = "array."
_TEXT_VALID = "text_valid"
_SIZE = "size"
_SOURCES = "sources"


def pack_conditions(conditions: Conditions) -> bytes:
    """Return safetensors bytes: ``size`` (height, width) int64, ``text_valid`` ``[L]`` bool, each ``array.NAME``.

    And ``sources`` ``[sources, 2]`` int64, where they have sizes of their own.
    """
    arrays = {f"{_ARRAY}{name}": np.asarray(array, order="C") for name, array in conditions.arrays.items()}
    arrays[_TEXT_VALID] = np.asarray(conditions.text_valid, order="C")
    arrays[_SIZE] = np.array([conditions.height, conditions.width], dtype=np.int64)
    if conditions.sources:
        arrays[_SOURCES] = np.array(conditions.sources, dtype=np.int64)
    return bytes(safetensors.numpy.save(arrays))


def unpack_conditions(data: bytes) -> Conditions:
    """Read `pack_conditions`'s bytes back, bit for bit; the arrays are read-only."""
    arrays = safetensors.numpy.load(data)
    height, width = arrays.pop(_SIZE).tolist()
    text_valid = arrays.pop(_TEXT_VALID)
    sources = arrays.pop(_SOURCES, np.empty((0, 2), dtype=np.int64))
    return Conditions(
        height=height,
        width=width,
        arrays={name.removeprefix(_ARRAY): array for name, array in sorted(arrays.items())},
        text_valid=text_valid,
        sources=tuple((int(height), int(width)) for height, width in sources),
    )
