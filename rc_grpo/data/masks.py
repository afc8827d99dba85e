"""From whatever a data set calls a mask to the one form a task carries: a grey PNG of 0 and 255, 255 where to edit."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.data.formats.json_text import parse
from rc_grpo.data.picture import Picture, picture
from rc_grpo.data.rle import Rle
from rc_grpo.editor.geometry import EmptyMaskError, binary_mask
from rc_grpo.images import encode_png, rgba

MaskFormat = Literal["auto", "image", "alpha", "rle"]
_HALF = 128
"""Alpha below this is transparent: half the range, as for grey levels."""

_COLOUR = 48
"""Channels further apart than this are colour; JPEG leaves less in a grey image."""

_TRANSPOSED = {
    True: ": its size is transposed; an RLE mask's size is [height, width]",
    False: ": it is transposed, or turned by a quarter against the source",
}
"""What a size that is the other way round means, for run lengths and for an image."""


def mask_of(value: Any, folder: Path) -> Picture | Rle | None:
    """Return the mask that a cell holds: an image, an RLE object (or its JSON text), or nothing.

    Raises:
        ValueError: the cell holds something else.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse(value)
        except ValueError as error:
            raise ValueError(f"the mask is neither a path nor RLE as JSON; it is {error}") from error
    if isinstance(value, dict) and "counts" in value:
        return None if value["counts"] is None else Rle.parse(value)
    return picture(value, folder, "mask")


def canonical_mask(
    mask: Picture | Rle | None, source: Picture, form: MaskFormat, *, invert: bool = False, stretch: bool = False
) -> bytes:
    """Return the mask as a grey PNG of the source's size with 255 where the edit may happen and 0 elsewhere.

    A mask that is one already is passed through byte for byte.

    Args:
        mask: as found; None where the source's alpha channel is the mask.
        source: the image to edit.
        form: which reading of ``mask`` is right. ``auto`` takes transparent pixels where there are any, else levels.
        invert: swap inside and outside.
        stretch: scale a mask of another size to the source's, instead of refusing it.

    Raises:
        EmptyMaskError: the mask covers nothing.
        ValueError: there is no mask of that form, it is unreadable, or its size is not the source's.
    """
    size = source.size()
    if isinstance(mask, Rle) != (form == "rle") and form != "auto":
        raise ValueError(f"the mask is {'not ' if form == 'rle' else ''}RLE, but mask_format is {form!r}")
    found = (mask.height, mask.width) if isinstance(mask, Rle) else (mask or source).size()
    if found != size and not stretch:
        raise ValueError(
            f"the mask is {found[0]}x{found[1]}, the source {size[0]}x{size[1]} (height x width)"
            + (_TRANSPOSED[isinstance(mask, Rle)] if found == size[::-1] else "")
        )
    if isinstance(mask, Rle):
        inside = _settled(mask.decode(), invert)
    else:
        if mask is None and form == "image":
            raise ValueError("there is no mask")
        data = (mask or source).read()
        image = replace(mask or source, origin=data).decode()
        if _by_alpha(image, form, asked=mask is None):
            inside = _settled(_transparent(image), invert)
        else:
            if not invert and found == size and _is_canonical(image):
                if not image.getbbox():
                    raise EmptyMaskError("the mask covers no pixel")
                return data
            if form == "auto" and _is_colour(image):
                raise ValueError(
                    "the mask is a colour picture without transparency; "
                    "if its brightness is meant, set mask_format: image"
                )
            inside = binary_mask(data, invert=invert)
    if found != size:
        inside = _stretched(inside, size)
    return encode_png(np.where(inside, np.uint8(255), np.uint8(0)))


def _by_alpha(image: Image.Image, form: MaskFormat, *, asked: bool) -> bool:
    if form == "image":
        return False
    if not _has_alpha(image):
        if asked:
            raise ValueError("there is no mask, and the source has no alpha channel to be one")
        if form == "alpha":
            raise ValueError(f"mask_format is 'alpha', but the mask has no alpha channel (its mode is {image.mode})")
        return False
    return form == "alpha" or asked or bool(_transparent(image).any())


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _transparent(image: Image.Image) -> NDArray[np.bool_]:
    alpha = np.asarray(rgba(image).getchannel("A"))
    transparent: NDArray[np.bool_] = alpha < _HALF
    if transparent.all() and np.ptp(alpha):
        raise ValueError(
            f"the mask's alpha is {alpha.min()} to {alpha.max()}, transparent everywhere, so that it tells nothing "
            "inside from outside; set mask_format: image if its brightness is meant"
        )
    return transparent


def _is_canonical(image: Image.Image) -> bool:
    if image.format != "PNG" or image.mode != "L":
        return False
    return not any(image.histogram()[1:255])


def _is_colour(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16"):
        return False
    levels = np.asarray(rgba(image).convert("RGB"))
    # Of a small share of pixels only, it is an artefact of compression or a stray mark, not a photograph.
    return float((np.ptp(levels, axis=-1) > _COLOUR).mean()) > 0.01


def _settled(inside: NDArray[np.bool_], invert: bool) -> NDArray[np.bool_]:
    settled = ~inside if invert else inside
    if not settled.any():
        raise EmptyMaskError("the mask covers no pixel" + (" after inversion" if invert else ""))
    return settled


def _stretched(inside: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    image = Image.fromarray(inside).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return _settled(np.asarray(image), invert=False)
