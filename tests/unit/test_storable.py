"""Text made fit to be kept: whatever comes, what leaves is valid, bounded, and stays as it is when done again."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.storable import REPLACEMENT, first_line, one_line, storable
from tests.unit.nasty import NASTY

ANYTHING = st.text(st.characters() | st.characters(categories=["Cs", "Cc"]), max_size=60)
TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def is_fit(text: str) -> bool:
    text.encode("utf-8")
    return not any(unicodedata.category(char) in ("Cc", "Cs") for char in text.replace("\n", "").replace("\t", ""))


@given(ANYTHING, st.integers(1, 80))
def test_what_leaves_is_fit_bounded_and_stays_as_it_is(text: str, limit: int) -> None:
    kept = storable(text, limit)
    assert is_fit(kept)
    assert len(kept) <= limit
    assert storable(kept, limit) == kept
    assert not TURNING & set(kept)
    line = one_line(text, limit)
    assert is_fit(line)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=60))
def test_ordinary_text_of_every_language_is_not_touched(text: str) -> None:
    assert storable(text, 60) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("great \ud83d", f"great {REPLACEMENT}"),
        ("\ud83d\ude00 \ude00\ud83d", f"\U0001f600 {REPLACEMENT * 2}"),
        ("a\x00b\x1b[31mc\x7f\x9b", f"a{REPLACEMENT}b{REPLACEMENT}[31mc{REPLACEMENT * 2}"),
        ("a\r\nb\u2028c\td", "a\nb\nc\td"),
        ("\u202etxt.exe", f"{REPLACEMENT}txt.exe"),
        ("\u200d\u200b stays \U0001f468\u200d\U0001f469", "\u200d\u200b stays \U0001f468\u200d\U0001f469"),
        ("", ""),
    ],
)
def test_what_is_unfit_is_replaced_a_character_for_a_character(text: str, kept: str) -> None:
    assert storable(text, 100) == kept


def test_what_is_cut_says_so_and_is_as_long_as_agreed() -> None:
    assert storable("x" * 10, 10) == "x" * 10
    assert storable("x" * 11, 10) == "x" * 9 + "…"
    assert one_line("a\n\n  b \t c", 10) == "a b c"


@pytest.mark.parametrize("name", NASTY)
def test_nasty_texts_are_fit_afterwards(name: str) -> None:
    assert is_fit(storable(NASTY[name], 1000))
    assert len(one_line(NASTY[name], 1000)) <= 1000


@pytest.mark.parametrize(("text", "said"), [("\n not here\nand so on", "not here"), (" \n ", "OSError(' \\n ')")])
def test_an_error_is_said_by_its_first_line_or_by_its_type(text: str, said: str) -> None:
    assert first_line(OSError(text)) == said
