"""The one error a caller of this folder sees, and how its message says what was found."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SHOWN = 60


class DataError(ValueError):
    """The data set is not usable; the message names the file or the task, the reason and the way out."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(message: str) -> str:
    """Return a message that every terminal and file takes: what is no UTF-8 in it is escaped."""
    return message.encode("utf-8", "backslashreplace").decode()


def shortened(value: object) -> str:
    """Return a value as a message quotes it: in one line of some 60 characters, whatever it holds."""
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = shown.maxlong = _SHOWN
    return shown.repr(value)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Read a data file inside the context.

    Raises:
        DataError: the file system refuses it.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot read {shortened(str(file))} ({error.strerror or error})") from error
