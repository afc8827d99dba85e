"""The pictures of a study, drawn anew: all of a trial have one size, and none says who made it."""

from functools import lru_cache

import numpy as np

from deploy.study.blinding import REGION, SOURCE, Blinding
from deploy.study.examples import Example
from rc_grpo.data.picture import Picture
from rc_grpo.editor.geometry import EmptyMaskError, binary_mask, resize_image, resize_mask
from rc_grpo.images import Pixels, decode_rgb, encode_png

LONGEST_SIDE = 1024
KEPT = 48
"""Pictures in memory; one of the largest size is some 2 MB."""
OUTSIDE = 0.3
"""Brightness of what is outside the region when it is shown."""


class Pictures:
    """Draws pictures by their opaque names; may be asked from several threads."""

    def __init__(self, blinding: Blinding) -> None:
        self._blinding = blinding
        self._drawn = lru_cache(KEPT)(self._draw)

    def png(self, name: str) -> bytes:
        """Return a picture as PNG without metadata, in the size of its source (at most 1024 pixels a side).

        Raises:
            KeyError: there is no picture of this name.
            ValueError: a file is not readable any more.
        """
        return self._drawn(name)

    def _draw(self, name: str) -> bytes:
        example, part = self._blinding.pictures[name]
        originals = self._blinding.material.benchmark.originals(example.sample)
        source = decode_rgb(originals.source)
        height, width = _fitted(*source.shape[:2])
        # Resized even if an edit comes in another size: that size would tell the model.
        if part == SOURCE:
            return encode_png(resize_image(source, height, width))
        if part == REGION:
            return encode_png(_lit(resize_image(source, height, width), originals.mask))
        return encode_png(resize_image(_edit(example, part), height, width))


def _fitted(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _edit(example: Example, part: str) -> Pixels:
    return decode_rgb(Picture(example.edits[part.partition("/")[2]], "edit").read())


def _lit(source: Pixels, mask: bytes) -> Pixels:
    """Return the source ``[H, W, 3]`` uint8, darkened outside the mask: unlike a tint it hides no colour."""
    try:
        inside = resize_mask(binary_mask(mask), *source.shape[:2])[..., None]
    except EmptyMaskError:
        return source
    return np.rint(source * (OUTSIDE + (1 - OUTSIDE) * inside)).astype(np.uint8)
