"""Encoded bytes to arrays and back: the one place where an image is decoded or encoded."""

import io
import struct
import zlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""An RGB image ``[H, W, 3]`` uint8, or a mask ``[H, W]`` uint8 with values 0 and 255."""

MAX_PIXELS = 2**26
"""Pixels of the largest image that is decoded, 8192 x 8192: 192 MiB of RGB. A header of a few bytes can claim more."""

MAX_ASPECT = 32
"""Of the longer side to the shorter; a token high, such an image still is edited at the area that it should be."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
"""Formats that are read: those of pixels. Pillow would start a program for some of the others."""

_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    # Of libavif and libwebp, of frames that are none; and NotImplementedError.
    RuntimeError,
)
"""What Pillow raises on bytes that are no image, or half an image."""

_TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNED = frozenset({5, 6, 7, 8})


class UnfitImageError(ValueError):
    """An image that could be read and is not: too large, too narrow, of levels that mean nothing. Says what it *is*."""


def encode_png(pixels: Pixels) -> bytes:
    """Encode an image ``[H, W, 3]`` or a mask ``[H, W]`` (uint8) as PNG, the lossless format every message carries."""
    buffer = io.BytesIO()
    # Level 1 takes a quarter of the time of the default for a sixth more bytes, and a run encodes every candidate.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def size_of(data: bytes | BinaryIO) -> tuple[int, int]:
    """Return the upright ``(height, width)`` of an encoded image, from its header alone.

    Raises:
        UnfitImageError: it is larger, or narrower, than what is decoded.
        ValueError: it is no image of `FORMATS`.
    """
    image = _open(data)
    width, height = image.size
    return (width, height) if _orientation(image) in _QUARTER_TURNED else (height, width)


def decode(data: bytes) -> Image.Image:
    """Return the decoded image, upright, in the mode it is stored in.

    Raises:
        UnfitImageError: it is larger, or narrower, than what is decoded.
        ValueError: it is no whole image of `FORMATS`.
    """
    image = stored(data)
    turned = _UPRIGHT.get(_orientation(image))
    return image if turned is None else image.transpose(turned)


def stored(data: bytes) -> Image.Image:
    """Return the decoded image as it is stored, whichever way up.

    Raises:
        UnfitImageError: it is larger, or narrower, than what is decoded.
        ValueError: it is no whole image of `FORMATS`.
    """
    image = _open(data)
    try:
        image.load()
    except _UNREADABLE as error:
        raise ValueError(f"{error}") from error
    if image.mode in ("P", "PA") and image.palette is None:
        raise ValueError("its palette is missing")
    return image


def require_levels(data: bytes | BinaryIO) -> None:
    """Make sure, by its header alone, that an image's levels are ones whose white is known.

    Raises:
        UnfitImageError: they are not.
        ValueError: it is no image of `FORMATS`.
    """
    _require_levels(_open(data))


def decode_rgb(data: bytes) -> Pixels:
    """Decode an image of `FORMATS` into upright RGB ``[H, W, 3]`` uint8, transparency flattened on white.

    Levels of 16 bits are scaled to 8.

    Raises:
        ValueError: the bytes are not a readable image, or one whose levels mean nothing.
    """
    return on_white(rgba(_decode_named(data)))


def on_white(image: Image.Image) -> Pixels:
    """Return an image in RGB or RGBA as RGB ``[H, W, 3]`` uint8, transparency flattened on white."""
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.asarray(image.convert("RGB"))


def rgba(image: Image.Image) -> Image.Image:
    """Return a decoded image in RGB with 8 bits a channel, or in RGBA where it has transparency.

    Raises:
        UnfitImageError: its levels mean nothing.
    """
    _require_levels(image)
    if image.mode in (*_SIXTEEN, "I"):
        levels = np.asarray(image)
        grey = ((levels.astype(np.int64) + 128) // 257).astype(np.uint8)
        if "transparency" not in image.info:
            return Image.fromarray(grey).convert("RGB")
        alpha = np.where(levels == image.info["transparency"], np.uint8(0), np.uint8(255))
        return Image.fromarray(np.dstack([grey] * 3 + [alpha]))
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return image.convert("RGB")
    return (image.convert("LA") if image.mode == "La" else image).convert("RGBA")


def decode_levels(data: bytes) -> NDArray[Any]:
    """Decode an image into the levels ``[H, W]`` of a mask, upright: uint8, or as stored where it has more bits.

    A grey palette gives its greys, a coloured one its indices; other colours give their brightness.

    Raises:
        ValueError: the bytes are not a readable image.
    """
    image = _decode_named(data)
    if image.mode in (*_SIXTEEN, "I", "F"):
        return np.asarray(image)
    if image.mode == "P":
        indices = np.asarray(image)
        colours = np.asarray(image.convert("RGB"))
        return indices if np.ptp(colours, axis=-1).any() else colours[..., 0]
    return np.asarray((image.convert("LA") if image.mode == "La" else image).convert("L"))


def _decode_named(data: bytes) -> Image.Image:
    try:
        return decode(data)
    except UnfitImageError as error:
        raise UnfitImageError(f"an image that {error}") from error
    except ValueError as error:
        raise ValueError(f"not a readable image ({len(data)} bytes): {error}") from error


def _open(data: bytes | BinaryIO) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except _TOO_LARGE as error:
        raise UnfitImageError(f"has more than {MAX_PIXELS} pixels ({error}); shrink it") from error
    except _UNREADABLE as error:
        raise ValueError(f"{error}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnfitImageError(f"is {height}x{width} (height x width), more than {MAX_PIXELS} pixels; shrink it")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnfitImageError(
            f"is {height}x{width} (height x width), one side more than {MAX_ASPECT} times the other; crop it"
        )
    return image


def _require_levels(image: Image.Image) -> None:
    if image.mode == "I" and image.format not in ("PNG", "PPM", None):
        raise UnfitImageError("has 32-bit levels (mode I), whose white is unknown; save it with 8 or 16 bits")
    if image.mode == "F":
        raise UnfitImageError("has levels in floating point (mode F), whose white is unknown; save it with 8 bits")
    if image.mode in ("LAB", "HSV"):
        raise UnfitImageError(f"has colours as {image.mode}; save it as RGB")
    # A TIFF may hold 12 bits in 16; its levels would be taken for those of a dark image.
    bits = getattr(image, "tag_v2", {}).get(258, (16,))
    if image.mode in _SIXTEEN and bits != (16,):
        raise UnfitImageError(f"has levels of {bits[0]} bits; save it with 8 or 16 bits")


def _orientation(image: Image.Image) -> int:
    """Return how an image is to be turned, 1 to 8; an unreadable note is none, as every viewer has it."""
    # Pillow turns a TIFF itself, in its header's size already.
    if image.format == "TIFF":
        return 1
    try:
        file = getattr(image, "fp", None)
        if image.format == "PNG" and "exif" not in image.info and file is not None and _has_exif(file):
            image.load()
        # Of a PNG, its own `getexif` would decode it.
        found = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except _UNREADABLE:
        return 1
    return found if isinstance(found, int) else 1


def _has_exif(file: Any) -> bool:
    """Tell whether a PNG has an eXIf chunk anywhere: some write it behind the pixels."""
    before = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return True
            # Behind its end there may be gigabytes of anything, such as zeros, each dozen of which is a chunk.
            if kind == b"IEND" or not kind.isalpha():
                return False
            file.seek(length + 4, io.SEEK_CUR)
        return False
    finally:
        file.seek(before)
