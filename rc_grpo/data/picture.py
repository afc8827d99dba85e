"""An image of a data set, in memory or in a file, that is read when somebody asks for it."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from rc_grpo.config.editor import MOST_SOURCES
from rc_grpo.data.errors import shortened
from rc_grpo.data.formats.path import path_of, refused, there
from rc_grpo.data.text import type_in_words
from rc_grpo.images import FORMATS, UnfitImageError, decode, encode_png, require_levels, rgba, size_of

_END_MARKS = (b"IEND\xaeB`\x82", b"\xff\xd9")
"""How a PNG and a JPEG end. A download that broke off is the commonest fault, and has neither."""

_HEAD, _TAIL = 24, 32

_ORDINALS = ("first", "second", "third")

MAX_BYTES = 2**30
"""Of a file that is read as an image: twice what the largest has without compression, at four channels of 16 bits."""


@dataclass(frozen=True)
class Picture:
    """An encoded image.

    Attributes:
        origin: the bytes, or the file that has them.
        role: what it is to its task, for error messages.
    """

    origin: bytes | Path
    role: str

    def read(self) -> bytes:
        """Return the encoded bytes.

        Raises:
            ValueError: the file is missing or unreadable.
        """
        if isinstance(self.origin, bytes):
            return self.origin
        try:
            _require_size(self.origin)
            return self.origin.read_bytes()
        except (OSError, ValueError) as error:
            raise refused(self.origin, self.role, error) from error

    def size(self) -> tuple[int, int]:
        """Return the upright ``(height, width)`` from the header alone.

        Raises:
            ValueError: the file is missing or its bytes are not an image.
        """
        with self.open() as stream, self._readable():
            return size_of(stream)

    def check(self) -> None:
        """Make sure that the image is there and whole, without decoding it where its last bytes tell.

        Raises:
            ValueError: the file is missing, or its bytes are not a whole image.
        """
        with self.open() as stream:
            with self._readable():
                require_levels(stream)
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            tail = stream.read()
        if not any(mark in tail for mark in _END_MARKS):
            self.decode()

    def decode(self) -> Image.Image:
        """Return the decoded image, upright, in the mode it is stored in.

        Raises:
            ValueError: the file is missing or its bytes are not a whole image.
        """
        data = self.read()
        with self._readable():
            return decode(data)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the encoded bytes inside the context.

        Raises:
            ValueError: the file is missing or unreadable.
        """
        if isinstance(self.origin, bytes):
            yield io.BytesIO(self.origin)
            return
        there(self.origin, self.role)
        try:
            _require_size(self.origin)
            stream = self.origin.open("rb")
        except (OSError, ValueError) as error:
            raise refused(self.origin, self.role, error) from error
        with stream:
            yield stream

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UnfitImageError as error:
            raise ValueError(f"the {self.role} {error}") from error
        except ValueError as error:
            said = f"it begins with {shortened(self._head())}; formats are {', '.join(FORMATS)}"
            unknown = isinstance(error.__cause__, UnidentifiedImageError)
            raise ValueError(f"the {self.role} is not a readable image: {said if unknown else error}") from error

    def _head(self) -> bytes:
        with self.open() as stream:
            return stream.read(_HEAD)


def _require_size(file: Path) -> None:
    if (size := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"it has {size} bytes, more than {MAX_BYTES}; no image that is read has as many")


def picture(value: Any, folder: Path, role: str) -> Picture | None:
    """Return the image that a cell holds: bytes, a path below ``folder``, or Hugging Face's ``{bytes, path}``.

    Raises:
        ValueError: the cell holds something else, or a path that leaves the folder.
    """
    if isinstance(value, dict) and "bytes" in value:
        # A data set saved with its images embedded keeps the bytes, and in `path` a mere name.
        value = value.get("path") if value["bytes"] is None else value["bytes"]
    match value:
        case None | "" | b"":
            return None
        case bytes():
            return Picture(value, role)
        case str():
            file = path_of(value, folder, role)
            return None if file is None else Picture(file, role)
    raise ValueError(f"the {role} is bytes, a path or {{bytes, path}}, not {type_in_words(value)} ({shortened(value)})")


def references_of(value: Any, folder: Path) -> tuple[Picture, ...]:
    """Return the further source images that a cell holds: a list of what `picture` takes, or one such.

    Raises:
        ValueError: one of them is none, or they are more than a task may have.
    """
    if not isinstance(value, list | tuple):
        alone = picture(value, folder, "reference")
        return () if alone is None else (alone,)
    if len(value) >= MOST_SOURCES:
        raise ValueError(
            f"the task has {1 + len(value)} source images with its references, and {MOST_SOURCES} are the most"
        )
    found = []
    for ordinal, cell in zip(_ORDINALS, value, strict=False):
        if (image := picture(cell, folder, f"{ordinal} reference")) is None:
            raise ValueError(f"the {ordinal} reference is empty; take it out of the list, or name its image")
        found.append(image)
    return tuple(found)


def opaque(image: Image.Image) -> bytes:
    """Return the image as PNG without its alpha channel, colours as stored below it."""
    return encode_png(np.asarray(rgba(image).convert("RGB")))
