"""Run-length encoded masks as COCO writes them: column by column, starting with a run outside."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rc_grpo.data.errors import shortened
from rc_grpo.images import MAX_PIXELS

_FORM = "an RLE mask is {size: [height, width], counts: list or string}"
_LONGEST = 2**53
"""Of a run; up to here a float tells whole numbers apart, and no mask has as many pixels."""

_BITS = 60
"""Of a number in a compressed string."""


@dataclass(frozen=True)
class Rle:
    """A mask as run lengths.

    Attributes:
        height: of the mask.
        width: of the mask.
        counts: lengths of alternating runs, outside first; or COCO's compressed string of them.
    """

    height: int
    width: int
    counts: tuple[int, ...] | str

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> "Rle":
        """Read ``{size: [height, width], counts: list or string}``.

        Raises:
            ValueError: it is not that.
        """
        for key in ("size", "counts"):
            if key not in value:
                raise ValueError(f"{_FORM}: it has no {key!r}")
        size, counts = value["size"], value["counts"]
        if not isinstance(size, list | tuple) or len(size) != 2:
            raise ValueError(f"{_FORM}: its size is {shortened(size)}, not two numbers")
        height, width = (_whole(side, "size") for side in size)
        if isinstance(counts, bytes):
            counts = counts.decode("ascii", "replace")
        if not isinstance(counts, str):
            if not isinstance(counts, list | tuple):
                raise ValueError(f"{_FORM}: its counts are {shortened(counts)}")
            counts = tuple(_whole(count, "counts") for count in counts)
        if height < 1 or width < 1:
            raise ValueError(f"an RLE mask of size {height}x{width}")
        return cls(height, width, counts)

    def decode(self) -> NDArray[np.bool_]:
        """Return the mask ``[height, width]`` bool.

        Raises:
            ValueError: the runs do not add up to the size, or it is larger than any image that is read.
        """
        runs = _uncompress(self.counts) if isinstance(self.counts, str) else self.counts
        # Before anything is allocated, and in Python's integers, which do not wrap: a size and runs that disagree are a
        # broken file, whatever its numbers are.
        if min(runs, default=0) < 0:
            raise ValueError(f"the RLE mask has a run of {min(runs)} pixels, and its runs add up to {sum(runs)}")
        if sum(runs) != self.height * self.width:
            raise ValueError(f"the RLE mask's runs add up to {sum(runs)}, not to {self.height}x{self.width}")
        if sum(runs) > MAX_PIXELS:
            raise ValueError(f"the RLE mask is {self.height}x{self.width}, more than {MAX_PIXELS} pixels")
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.ascontiguousarray(inside.reshape(self.width, self.height).T)


def _whole(value: Any, key: str) -> int:
    """Return a whole number that is written as one: as integer, as float without a fraction, or in digits."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, float):
        whole = value.is_integer()
    if isinstance(value, str):
        whole = re.fullmatch(r"-?[0-9]{1,16}", value) is not None
    if not whole or abs(int(value)) > _LONGEST:
        raise ValueError(f"{_FORM}: {shortened(value)} in its {key} is no whole number of pixels")
    return int(value)


def _uncompress(counts: str) -> list[int]:
    """Undo COCO's compression: little-endian groups of five bits and a sign, each run less the one before the last."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"character {character!r} in the RLE mask's counts")
        value |= (bits & 0x1F) << shift
        shift += 5
        if shift > _BITS:
            raise ValueError("the RLE mask's counts hold a number beyond any image")
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        # COCO stores the first three runs as they are, although the third has a predecessor of its kind already.
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    if shift:
        raise ValueError("the RLE mask's counts are cut off")
    return runs
