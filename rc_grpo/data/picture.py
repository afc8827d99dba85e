"""An image of a data set, in memory or in a file, that is read when somebody asks for it."""

import io
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from rc_grpo.images import encode_png

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises on bytes that are no image, half an image, or an unreasonably large one."""


_END_MARKS = (b"IEND\xaeB`\x82", b"\xff\xd9")
"""How a PNG and a JPEG end. A download that broke off is the commonest fault, and has neither."""

_TAIL = 32


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
            return self.origin.read_bytes()
        except OSError as error:
            raise ValueError(f"the {self.role}: cannot read {self.origin} ({error.strerror or error})") from error

    def size(self) -> tuple[int, int]:
        """Return ``(height, width)`` from the header alone.

        Raises:
            ValueError: the file is missing or its bytes are not an image.
        """
        stream = io.BytesIO(self.origin) if isinstance(self.origin, bytes) else self.origin
        if isinstance(stream, Path) and not stream.is_file():
            raise ValueError(f"the {self.role}: no file {stream}")
        with self._readable(), Image.open(stream) as image:
            return image.height, image.width

    def check(self) -> None:
        """Make sure that the image is there and whole, without decoding it where its last bytes tell.

        Raises:
            ValueError: the file is missing, or its bytes are not a whole image.
        """
        self.size()
        if isinstance(self.origin, bytes):
            tail = self.origin[-_TAIL:]
        else:
            with self.origin.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
                tail = file.read()
        if not any(mark in tail for mark in _END_MARKS):
            self.decode()

    def decode(self) -> Image.Image:
        """Return the decoded image, in the mode it is stored in.

        Raises:
            ValueError: the file is missing or its bytes are not a whole image.
        """
        data = self.read()
        with self._readable():
            image = Image.open(io.BytesIO(data))
            image.load()
        return image

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except _UNREADABLE as error:
            raise ValueError(f"the {self.role} is not a readable image: {error}") from error


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
            return Picture(inside(value, folder), role)
    raise ValueError(f"the {role} is bytes, a path or {{bytes, path}}, not {type(value).__name__}")


def inside(path: str, folder: Path) -> Path:
    """Return ``folder / path`` for a relative path that stays in the folder; links are the owner's business.

    Raises:
        ValueError: the path is absolute or climbs out. A data file from elsewhere must not name files of this machine.
    """
    # Normalised as text, so that what is checked is what is opened, also where a part of the path is a link.
    normal = os.path.normpath(path)
    if PurePath(path).is_absolute() or PurePath(normal).parts[:1] == ("..",):
        raise ValueError(f"path {path!r} leaves the data set's folder {folder}; paths are relative to it")
    return folder / normal


def opaque(image: Image.Image) -> bytes:
    """Return the image as PNG without its alpha channel, colours as stored below it."""
    return encode_png(np.asarray(image.convert("RGBA").convert("RGB")))
