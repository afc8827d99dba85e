"""Paths in a data set's cells: what looks like something else, and what leaves the folder."""

import os
import re
from pathlib import Path, PurePath

from rc_grpo.data.errors import shortened
from rc_grpo.data.text import read_text

_ENCODED_IMAGE = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk0", "SUkqA", "TU0AK", "AAAAIGZ0eX", "AAAAHGZ0eX")
"""How the base64 of PNG, JPEG, GIF, WebP, BMP, TIFF and AVIF begins."""

_LOOKS = (
    (re.compile(r"data:", re.I), "a data: URL", "write the image to a file"),
    (re.compile(r"[a-z][a-z0-9+.-]*://", re.I), "a URL, and nothing is downloaded", "download the image"),
    (re.compile(r"\d+([ ,;]+\d+)+\s*$"), "run lengths", "write a mask as {size: [height, width], counts: ...} or PNG"),
    (re.compile(r"\s*[\[(<]"), "a list or markup as text", "write the image to a file"),
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{256,}={0,2}$")
_SHORTEST_BASE64 = 32


def inside(path: str, folder: Path) -> Path:
    """Return ``folder / path`` for a relative path that stays in the folder; links are the owner's business.

    Raises:
        ValueError: the path is absolute or climbs out. A data file from elsewhere must not name files of this machine.
    """
    # Normalised as text, so that what is checked is what is opened, also where a part of the path is a link.
    normal = os.path.normpath(path)
    if PurePath(path).is_absolute() or PurePath(normal).parts[:1] == ("..",):
        raise ValueError(f"path {shortened(path)} leaves the data set's folder {folder}; paths are relative to it")
    return folder / normal


def path_of(cell: str, folder: Path, role: str) -> Path | None:
    """Return the file below ``folder`` that a cell names, or None where it is blank.

    Args:
        cell: as found.
        folder: that paths are relative to.
        role: what the file is to its task, for the message.

    Raises:
        ValueError: it is no path, and what it looks like; or it leaves the folder.
    """
    if not cell.strip():
        return None
    if found := _looks_like(cell):
        looks, way_out = found
        raise ValueError(
            f"the {role} looks like {looks} ({shortened(cell)}), where a path is expected; {way_out} and name its path"
        )
    # Not stripped: a name may end in a space.
    read_text(cell, role)
    if "\n" in cell or "\r" in cell:
        raise ValueError(f"the {role} is no path, as it has several lines ({shortened(cell)})")
    return inside(cell, folder)


def there(file: Path, role: str) -> None:
    """Make sure that a file is one.

    Raises:
        ValueError: it is not, or the file system refuses its name.
    """
    try:
        found = file.is_file()
    except (OSError, ValueError) as error:
        raise refused(file, role, error) from error
    if not found:
        raise ValueError(f"the {role}: no file {_shown(file)}" + (" (it is a folder)" if file.is_dir() else ""))


def refused(file: Path, role: str, error: Exception) -> ValueError:
    """Return what is said where the file system refuses a file."""
    reason = getattr(error, "strerror", None) or error
    return ValueError(f"the {role}: cannot read {_shown(file)} ({reason})")


def _looks_like(cell: str) -> tuple[str, str] | None:
    for pattern, looks, way_out in _LOOKS:
        if pattern.match(cell):
            return looks, way_out
    encoded = cell.startswith(_ENCODED_IMAGE) and len(cell) >= _SHORTEST_BASE64 and "." not in cell
    if encoded or _BASE64.match("".join(cell.split())):
        return "base64", "decode it and write the image to a file (or keep its bytes in a parquet column)"
    return None


def _shown(file: Path) -> str:
    """Return a path whole where it is of a length that paths have, so that it can be copied."""
    longest = 400
    return str(file) if len(str(file)) <= longest else shortened(str(file))
