"""What a target is, and the one way to call a reader: it answers, or refuses in words that are fit to be shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis.strategies import SearchStrategy

LONGEST_REFUSAL = 20_000
"""Characters; a refusal quotes what it refuses, never all of it."""


class UndocumentedError(AssertionError):
    """A reader raised an error that it does not document, or refused in words that no terminal shows."""


@dataclass(frozen=True)
class Target:
    """A reader under fuzzing.

    Attributes:
        name: on the command line.
        inputs: what is drawn.
        check: takes what was drawn, and raises if the reader breaks its promise.
    """

    name: str
    inputs: SearchStrategy[Any]
    check: Callable[[Any], None]


@dataclass(frozen=True)
class Refused:
    """That a reader refused, and in which words."""

    words: str


def ask(call: Callable[[], Any], *errors: type[Exception], naming: str = "") -> Any:
    """Return what a reader gives, or `Refused` where it raises a documented error.

    Args:
        call: the reader.
        errors: that it documents.
        naming: what a refusal must name, such as the file.

    Raises:
        UndocumentedError: it raised something else, or its words are not fit.
    """
    try:
        return call()
    except errors as error:
        words = str(error)
        fault = _unfit(words, naming)
        if fault:
            raise UndocumentedError(f"{type(error).__name__} {fault}: {words[:400]!r}") from error
        return Refused(words)
    except (Exception, RecursionError) as error:
        raise UndocumentedError(f"{type(error).__name__}: {str(error)[:400]!r}") from error


def _unfit(words: str, naming: str) -> str:
    if not words.strip():
        return "says nothing"
    if len(words) > LONGEST_REFUSAL:
        return f"has {len(words)} characters"
    if naming not in words:
        return f"does not name {naming}"
    try:
        words.encode()
    except UnicodeEncodeError:
        return "is no UTF-8"
    return ""
