"""The objects of the pocket world: drawings on a 3x3 grid of named places, in two sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.images import Pixels
from rc_grpo.pocket.photographs import ASSETS

IMAGE_SIZE = 128
"""Side of every image in pixels: 64 packed tokens of 16x16 pixels each."""

SPRITES: dict[str, str] = {
    "apple": "🍎",
    "balloon": "🎈",
    "banana": "🍌",
    "butterfly": "🦋",
    "car": "🚗",
    "cat": "🐱",
    "cup": "☕",
    "dog": "🐶",
    "fish": "🐠",
    "frog": "🐸",
    "hat": "🎩",
    "key": "🔑",
    "mushroom": "🍄",
    "pizza": "🍕",
    "star": "⭐",
    "sunflower": "🌻",
    "tree": "🌳",
    "umbrella": "☔",
}
"""Name of each object and the emoji it is drawn as."""

SIZES: dict[str, int] = {"small": 30, "large": 44}
"""Side of an object in pixels."""

DEFAULT_SIZE = "large"
"""That of an added object whose instruction names none."""

PLACES: dict[str, tuple[int, int]] = {
    f"{row} {column}" if (row, column) != ("center", "center") else "center": (y, x)
    for row, y in (("top", 23), ("center", 64), ("bottom", 105))
    for column, x in (("left", 23), ("center", 64), ("right", 105))
}
"""Name of each place and the pixel (row, column) of its middle."""

MASK_MARGIN = 4
"""Pixels by which the mask exceeds the silhouettes of what changes."""


@dataclass(frozen=True)
class Placed:
    """An object, in a size, at a place: keys of `SPRITES`, `SIZES` and `PLACES`."""

    name: str
    size: str
    place: str

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of pixels that it may cover."""
        (y, x), side = PLACES[self.place], SIZES[self.size]
        return slice(y - side // 2, y - side // 2 + side), slice(x - side // 2, x - side // 2 + side)


def paint(background: Pixels, objects: Iterable[Placed]) -> Pixels:
    """Draw objects onto a copy of the background, each over those before it."""
    canvas = background.copy()
    for placed in objects:
        sprite = _sprite(placed.name, placed.size).astype(np.int32)
        alpha, under = sprite[..., 3:], canvas[placed.box].astype(np.int32)
        # Integers throughout: the same bytes on every machine.
        canvas[placed.box] = ((sprite[..., :3] * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)
    return canvas


def mask_of(changed: Sequence[Placed]) -> Pixels:
    """Return ``[128, 128]`` uint8: 255 on the silhouettes of these objects and `MASK_MARGIN` around them, else 0."""
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for placed in changed:
        mask[placed.box] |= np.where(_sprite(placed.name, placed.size)[..., 3] > 0, np.uint8(255), np.uint8(0))
    return _dilate(_dilate(mask).T).T.copy()


@cache
def _sprite(name: str, size: str) -> NDArray[np.uint8]:
    side = SIZES[size]
    with Image.open(ASSETS / "sprites" / f"{name}.png") as image:
        # Premultiplied while it shrinks, or colours of transparent pixels bleed into the outline.
        small = image.convert("RGBA").convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    array = np.asarray(small)
    array.setflags(write=False)
    return array


def _dilate(mask: Pixels) -> Pixels:
    """Maximum over a window of rows; twice, once transposed, it is a square window, faster than Pillow's."""
    padded = np.pad(mask, ((MASK_MARGIN, MASK_MARGIN), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * MASK_MARGIN + 1, axis=0)
    dilated: Pixels = windows.max(axis=-1)
    return dilated
