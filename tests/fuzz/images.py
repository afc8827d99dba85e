"""Encoded images: many formats and modes, mutated with their checksums right or wrong, through every decoder."""

import io
import struct
import warnings
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from rc_grpo.data.picture import Picture
from rc_grpo.evaluation.compbench.frames import Frames, Originals
from rc_grpo.images import MAX_ASPECT, MAX_PIXELS, decode, decode_levels, decode_rgb, require_levels, rgba, size_of
from tests.fuzz.mutations import mutated_bytes
from tests.fuzz.target import Refused, Target, ask

HEIGHT, WIDTH = 6, 9
_RANDOM = np.random.default_rng(0)
_RGB = Image.fromarray(_RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
_GREY = Image.fromarray(_RANDOM.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16))
_MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "I"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
}


def _in_mode(mode: str) -> Image.Image:
    if mode.startswith("I;16"):
        return _GREY
    if mode in ("LAB", "PA", "LA"):
        return Image.frombytes(
            mode, (WIDTH, HEIGHT), _RANDOM.bytes(WIDTH * HEIGHT * len(Image.new(mode, (1, 1)).tobytes()))
        )
    return _GREY.convert(mode) if mode in ("I", "F") else _RGB.convert(mode)


def _samples() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    samples = []
    for form, modes in _MODES.items():
        for mode in modes:
            for options in ({}, {"exif": exif}, {"compression": "tiff_lzw"}, {"interlace": True}, {"transparency": 3}):
                if ("compression" in options and form != "TIFF") or (
                    "transparency" in options and form not in ("PNG", "GIF")
                ):
                    continue
                buffer = io.BytesIO()
                try:
                    _in_mode(mode).save(buffer, format=form, **options)
                except (OSError, ValueError, KeyError):
                    continue
                samples.append(buffer.getvalue())
    animated = io.BytesIO()
    _RGB.save(animated, format="GIF", save_all=True, append_images=[_RGB.rotate(180)])
    return [*dict.fromkeys(samples), animated.getvalue()]


def mend_png(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right, as far as it is one."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    whole, place = data[:8], 8
    while place + 8 <= len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        body = data[place + 4 : place + 8 + length]
        whole += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return whole


SAMPLES = _samples()


def _one(call: Callable[[], object]) -> object:
    return ask(call, ValueError)


def check(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size, colours = _one(lambda: size_of(data)), _one(lambda: decode_rgb(data))
        levels, stored = _one(lambda: decode_levels(data)), _one(lambda: decode(data))
        known = _one(lambda: require_levels(data))
        checked = _one(Picture(data, "source").check)
        framed = _one(lambda: Frames.read(Originals(data, data), data, side=4))
        if isinstance(size, tuple):
            assert size[0] * size[1] <= MAX_PIXELS
            assert max(size) <= MAX_ASPECT * min(size)
        if isinstance(colours, np.ndarray):
            assert colours.dtype == np.uint8
            assert colours.shape == (*size, 3), "the header's size is not the decoded one"
            assert not isinstance(known, Refused)
            assert not isinstance(checked, Refused), "decodes, and is refused by its check"
        assert isinstance(stored, Image.Image) or not isinstance(framed, Frames), "the benchmark reads what is no image"
        if isinstance(levels, np.ndarray):
            assert levels.shape == size
        if isinstance(stored, Image.Image):
            assert stored.size[::-1] == size
            _one(lambda: rgba(stored))


TARGET = Target("images", mutated_bytes(SAMPLES, mend=mend_png), check)
