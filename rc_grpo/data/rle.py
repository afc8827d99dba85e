"""Run-length encoded masks as COCO writes them: column by column, starting with a run outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        try:
            height, width = (int(side) for side in value["size"])
            counts = value["counts"]
            if isinstance(counts, bytes):
                counts = counts.decode("ascii")
            if not isinstance(counts, str):
                counts = tuple(int(count) for count in counts)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"an RLE mask is {{size: [height, width], counts: list or string}}: {error!r}") from error
        if height < 1 or width < 1:
            raise ValueError(f"an RLE mask of size {height}x{width}")
        return cls(height, width, counts)

    def decode(self) -> NDArray[np.bool_]:
        """Return the mask ``[height, width]`` bool.

        Raises:
            ValueError: the runs do not add up to the size.
        """
        runs = _uncompress(self.counts) if isinstance(self.counts, str) else self.counts
        # Before anything is allocated, and in Python's integers, which do not wrap: a size and runs that disagree are a
        # broken file, whatever its numbers are.
        if min(runs, default=0) < 0 or sum(runs) != self.height * self.width:
            raise ValueError(f"the RLE mask's runs add up to {sum(runs)}, not to {self.height}x{self.width}")
        inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        return np.ascontiguousarray(inside.reshape(self.width, self.height).T)


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
