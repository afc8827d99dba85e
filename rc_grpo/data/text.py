"""The texts of a record: what is text, what says something, and what can be an id."""

import math
import re
import unicodedata
from decimal import Decimal
from typing import Any

from rc_grpo.data.errors import shortened

_INVISIBLE = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufffc\ufffd")
"""Letters and symbols by their category that show nothing: fillers, the empty Braille cell, replacement characters."""

_LINES = frozenset("\t\n\r")
_EXACT = 2**53
"""Up to here a float tells whole numbers apart."""

_NAMES = {
    list: "a list",
    tuple: "a list",
    dict: "an object",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    Decimal: "a number",
}


def read_text(value: Any, what: str) -> str | None:
    """Return a cell of a text column, stripped, or None where it holds nothing.

    Args:
        value: a string, or its UTF-8 as bytes.
        what: the field, for the message.

    Raises:
        ValueError: it is something else, or a text that no tokenizer takes or that says nothing.
    """
    if value is None:
        return None
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            value = bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"the {what} is binary that is no UTF-8 text ({shortened(bytes(value))}); "
                f"save the column as text, or name another in columns: {{{what}: COLUMN}}"
            ) from error
    if not isinstance(value, str):
        raise ValueError(
            f"the {what} is {type_in_words(value)} ({shortened(value)}), not text; "
            f"name a text column in columns: {{{what}: COLUMN}}"
        )
    stripped = value.strip()
    if not stripped:
        return None
    if fault := _unsayable(stripped):
        raise ValueError(f"the {what} {fault}: {shortened(stripped)}; write it anew as plain UTF-8 text")
    if not any(map(_says_something, stripped)):
        raise ValueError(
            f"the {what} says nothing: it holds invisible characters alone ({stripped[:5]!a}); "
            "write a text, or leave it out"
        )
    return stripped


def read_id(value: Any) -> str | None:
    """Return a cell of the id column as text, or None where it holds nothing. Whole numbers are ids, too.

    Raises:
        ValueError: it can be no id: seeds, records and file names go by it.
    """
    if _is_number(value):
        # A column of whole numbers becomes one of floats where a single cell of it is empty.
        if not _is_whole(value):
            raise ValueError(f"the task_id is {shortened(value)}, which is no whole number; ids are text or whole ones")
        return str(int(value))
    found = read_text(value, "task_id")
    if found is not None and re.search(r"[\t\n\r\u2028\u2029]", found):
        raise ValueError(f"the task_id holds a line break or tab: {shortened(found)}; ids stand in one line")
    return found


def read_kind(value: Any) -> str | None:
    """Return a cell of the kind column as text, or None where it holds nothing; a number is a kind of its own.

    Raises:
        ValueError: it is neither text nor a number.
    """
    return str(value) if _is_number(value) else read_text(value, "kind")


def readable(value: Any) -> str | None:
    """Return a cell as text, or None where it holds nothing or no text: for those who only list what there is."""
    try:
        return read_text(value, "cell")
    except ValueError:
        return None


def identity(value: Any, derived: str) -> tuple[str, str | None]:
    """Return a record's id, and what is wrong with it: the derived one stands in for one that is none."""
    try:
        return read_id(value) or derived, None
    except ValueError as error:
        return derived, str(error)


def type_in_words(value: Any) -> str:
    """Return what a cell holds, for somebody who knows the file and not Python."""
    if isinstance(value, float | Decimal) and math.isnan(value):
        return "NaN (an empty cell?)"
    return _NAMES.get(type(value), f"a {type(value).__name__.strip('_').lower()}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _is_whole(value: int | float | Decimal) -> bool:
    if isinstance(value, int):
        # Of any length: to ask whether it is finite would make it a float, which may be too small for it.
        return True
    if isinstance(value, Decimal):
        return value.is_finite() and value == int(value)
    return value.is_integer() and abs(value) < _EXACT


def _unsayable(text: str) -> str | None:
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            return f"holds half a character (the lone surrogate {character!a}), which is no UTF-8"
        if category == "Cc" and character not in _LINES:
            return f"holds the control character {character!a}"
    return None


def _says_something(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNPS" and character not in _INVISIBLE
