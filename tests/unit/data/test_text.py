"""The texts of a record: what is refused before a tokenizer, a file name or a log meets it, in every format."""

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.picture import picture
from rc_grpo.data.text import identity, read_id, read_kind, read_text

from .conftest import MASK, SOURCE, reason_of, source_of

NO_TEXT = {
    "list": (["Remove it"], r"is a list \(\['Remove it'\]\), not text; name a text column"),
    "object": ({"en": "Remove it"}, "is an object"),
    "boolean": (False, r"is a boolean \(False\)"),
    "whole number": (7, "is a number"),
    "number": (7.5, "is a number"),
    "NaN": (math.nan, "is NaN"),
    "decimal": (Decimal("1.5"), "is a number"),
    "latin-1": ("Füge hinzu".encode("latin-1"), "is binary that is no UTF-8 text"),
}
UNSAYABLE = {
    "high surrogate": ("cat \ud83d", "half a character"),
    "low surrogate": ("\udc4d cat", "half a character"),
    "NUL": ("cat\0", r"control character '\\x00'"),
    "bell": ("ring\x07the bell", r"control character '\\x07'"),
    "escape": ("\x1b[31mred", r"control character '\\x1b'"),
    "C1": ("cat\x9b", r"control character '\\x9b'"),
}
NOTHING = ["\u200b", "\ufeff", " \u200d\u2060 ", "\u00ad", "\u2800\u2800", "\u3164", "\ufe0f", "\u202e\u202c", "\u0301"]


@pytest.mark.parametrize("value", ["Add a cat", "ひげを足す", "👩‍👧 in", "a\nb", "a\tb", "?", "3", "e\u0301t\u00e9"])
def test_what_people_write_is_taken_as_it_is(value: str) -> None:
    assert read_text(value, "instruction") == value
    assert read_text(value.encode(), "instruction") == value
    assert read_text(f" {value}\n", "instruction") == value


@pytest.mark.parametrize("value", [None, "", " \n\t", b"", b"  "])
def test_an_empty_cell_is_no_text(value: Any) -> None:
    assert read_text(value, "caption") is None
    assert read_id(value) is None


@pytest.mark.parametrize("name", NO_TEXT)
def test_what_is_no_text_is_refused_by_its_type_and_with_the_way_out(name: str) -> None:
    value, said = NO_TEXT[name]
    with pytest.raises(ValueError, match=f"the instruction {said}.*columns: {{instruction: COLUMN}}"):
        read_text(value, "instruction")


@pytest.mark.parametrize(
    "value",
    [10**400, -(10**309), 2**1024, Decimal(10) ** 400, Decimal("1e-400")],
    ids=lambda value: f"{value:.3}" if isinstance(value, Decimal) else f"{len(str(value))} digits",
)
def test_numbers_that_no_float_holds_are_numbers(value: Any) -> None:
    with pytest.raises(ValueError, match="is a number"):
        read_text(value, "instruction")
    with pytest.raises(ValueError, match="not a number"):
        picture(value, Path("/data"), "source")
    assert identity(value, "derived")[0] == (str(int(value)) if value == int(value) else "derived")
    assert read_kind(value) == str(value)


@pytest.mark.parametrize("name", UNSAYABLE)
def test_what_no_tokenizer_takes_is_refused_by_the_character(name: str) -> None:
    value, said = UNSAYABLE[name]
    for read in (lambda: read_text(value, "caption"), lambda: read_id(value)):
        with pytest.raises(ValueError, match=said) as error:
            read()
        str(error.value).encode()


@pytest.mark.parametrize("value", NOTHING)
def test_invisible_characters_alone_say_nothing(value: str) -> None:
    with pytest.raises(ValueError, match="says nothing"):
        read_text(value, "instruction")
    with pytest.raises(ValueError, match="says nothing"):
        read_id(value)


@given(st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zs", "Zl", "Zp", "Lo", "So", "Mn"]), max_size=6))
def test_whatever_is_read_is_utf_8_and_shows_something(value: str) -> None:
    if (reason := reason_of(lambda: read_text(value, "instruction"))) is not None:
        reason.encode()
    elif (found := read_text(value, "instruction")) is not None:
        found.encode()
        assert any(character.isprintable() and not character.isspace() for character in found)


@pytest.mark.parametrize(("value", "found"), [(7, "7"), (-1, "-1"), (7.0, "7"), (Decimal("12"), "12"), (b"a1", "a1")])
def test_whole_numbers_are_ids(value: Any, found: str) -> None:
    assert identity(value, "derived") == (found, None)


@pytest.mark.parametrize(
    "value",
    [True, 7.5, math.nan, math.inf, 1e30, Decimal("NaN"), ["a"], {"id": 1}, "a\nb", "a\tb", "a\u2028b", b"\xff"],
)
def test_what_can_be_no_id_is_refused_under_a_derived_one(value: Any) -> None:
    found, fault = identity(value, "derived-000001")
    assert found == "derived-000001"
    assert fault is not None
    assert "task_id" in fault


@pytest.mark.parametrize(("value", "found"), [(3, "3"), (2.5, "2.5"), ("Add", "Add"), (None, None)])
def test_a_kind_may_be_a_number(value: Any, found: str | None) -> None:
    assert read_kind(value) == found
    with pytest.raises(ValueError, match="kind is a list"):
        read_kind(["add"])


REFUSED = [
    *({"instruction": value} for value in ("a\ud83d", "\0", "\u200b", ["a"], {"a": 1}, False, 3, math.nan, None)),
    *({"task_id": value} for value in ("a\ud83d", "a\0b", "\ufeff", ["a"], {"a": 1}, True, 1.5, math.nan)),
    *({"caption": value} for value in ("a\udc4d", "\x08", "\u200b", ["a"], 1)),
    *({"kind": value} for value in ("add\ud83d", ["add"], True)),
]


@pytest.mark.parametrize("form", ["jsonl", "compbench"])
def test_a_text_that_is_none_is_refused_by_its_row_and_skipped_if_so_asked(lines, compbench, form: str) -> None:
    changes = [change for change in REFUSED if form == "jsonl" or not change.keys() & {"task_id", "kind"}]
    if form == "jsonl":
        path = lines({}, *changes)
    else:
        path = compbench(1, ["add"])
        metadata = path / "add" / "metadata.json"
        (good,) = json.loads(metadata.read_text())
        numbers = [{"image_path": value} for value in ("a\0.png", ["a"], 3.5)]
        changes = [*changes, *numbers]
        metadata.write_text(json.dumps([good, *(good | change for change in changes)]))
    for number, change in enumerate(changes, start=1):
        where = f"line {number + 1}" if form == "jsonl" else f"entry {number}"
        (field,) = change
        tasks = load_tasks(source_of(path, form, on_bad_task="skip"), "evaluate")
        assert len(tasks) == 1
        (refusal,) = [refusal for refusal in tasks.refused if refusal.place.endswith(where)]
        assert (field if form == "jsonl" or field != "image_path" else "task_id") in refusal.reason
        str(refusal).encode()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pa.array([["Remove it"]]), "is a list"),
        (pa.array([{"en": "Remove it"}]), "is an object"),
        (pa.array([math.nan]), "is NaN"),
        (pa.array([True]), "is a boolean"),
        (pa.array([b"\xff\xfe"]), "no UTF-8"),
        (pa.array([3]), "is a number"),
        (pa.array([b"caf\xe9"]).view(pa.string()), "unreadable"),
    ],
)
def test_a_parquet_column_of_another_type_is_refused_by_row(table, column: pa.Array, said: str) -> None:
    path = table(source=[SOURCE], mask=[MASK], instruction=column)
    with pytest.raises(DataError, match=rf"'data-000000' \(.*row 0\): the instruction.*{said}"):
        load_tasks(source_of(path))


def test_one_cell_of_another_encoding_spoils_its_own_row_alone(table) -> None:
    words = pa.array([b"Add a cat", b"caf\xe9", b"Remove it"]).view(pa.string())
    path = table(source=[SOURCE] * 3, mask=[MASK] * 3, instruction=words)
    tasks = load_tasks(source_of(path, on_bad_task="skip"))
    assert [task.instruction for task in tasks] == ["Add a cat", "Remove it"]


def test_binary_columns_of_utf_8_are_text(table) -> None:
    path = table(source=[SOURCE], mask=[MASK], instruction=["Füge hinzu".encode()], task_id=[b"k1"], kind=[b"add"])
    (task,) = load_tasks(source_of(path))
    assert (task.instruction, task.task_id, task.kind) == ("Füge hinzu", "k1", "add")


def test_ids_that_pandas_turned_into_floats_are_the_numbers_they_were(table) -> None:
    path = table(source=[SOURCE] * 2, mask=[MASK] * 2, instruction=["a", "b"], task_id=[7.0, None])
    assert [task.task_id for task in load_tasks(source_of(path))] == ["7", "data-000001"]


def test_an_error_holds_no_half_character(lines) -> None:
    source = TaskSource(format="jsonl", path=lines({"source": "a\ud83d.png"}))
    with pytest.raises(DataError) as error:
        load_tasks(source)
    str(error.value).encode()
