"""A run's ``metrics.jsonl`` as it grows: what was added is read, and what was replaced is read anew."""

import os
from pathlib import Path
from typing import BinaryIO

from deploy.records.curves import Curves
from deploy.records.metrics import parse_line
from rc_grpo.kept import DamagedFileError

_CHUNK = 1 << 20
LONGEST_LINE = 8 << 20
"""Bytes. No run writes such a line; what is longer is read no further, whatever it is."""


class MetricsTail:
    """Follows one file. A last line without its end is none yet; a line that is none is left out and counted.

    Going back to a checkpoint replaces the file, a copy may cut it short: then all of it is read again.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.generation = 0
        """How often it was read from its beginning."""
        self._begin()

    @property
    def remark(self) -> str:
        """What could not be read, in a sentence; empty if all could."""
        if not self._damaged:
            return ""
        more = f" and {self._damaged - 1} more" if self._damaged > 1 else ""
        return f"A line was left out{more}: {self._first_damage}"

    def read(self) -> bool:
        """Take what was added since; return whether the curves are other than before.

        Raises:
            OSError: the file is there, and the file system refuses it.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            there_was = self._number > 0
            if there_was:
                self._begin()
            return there_was
        with file:
            changed = self._is_another(file)
            if changed:
                self._begin()
            here = os.fstat(file.fileno())
            self._file = here.st_dev, here.st_ino
            return self._read_on(file) or changed

    def _begin(self) -> None:
        self.generation += 1
        self.curves = Curves()
        self._file: tuple[int, int] | None = None
        self._at, self._number, self._last = 0, 0, b""
        self._damaged, self._first_damage = 0, ""

    def _is_another(self, file: BinaryIO) -> bool:
        if not self._at:
            return False
        here = os.fstat(file.fileno())
        if (here.st_dev, here.st_ino) != self._file or here.st_size < self._at:
            return True
        # A number of a file may be given again: the line that was read last must still be where it was.
        file.seek(self._at - len(self._last))
        return file.read(len(self._last)) != self._last

    def _read_on(self, file: BinaryIO) -> bool:
        file.seek(self._at)
        pending, before = b"", self._number
        while len(pending) <= LONGEST_LINE and (chunk := file.read(_CHUNK)):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._take(line)
        return self._number > before

    def _take(self, line: bytes) -> None:
        self._number += 1
        self._last = line + b"\n"
        self._at += len(self._last)
        try:
            self.curves.add(parse_line(self._path, self._number, line))
        except DamagedFileError as error:
            self._damaged += 1
            self._first_damage = self._first_damage or str(error)
