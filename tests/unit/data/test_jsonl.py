"""A broken JSON line is told as that, by its number and column; a file that is no JSON lines, as what it is."""

import gzip
import json
from pathlib import Path

import pytest

from rc_grpo.data import DataError, load_tasks

from .conftest import MASK, SOURCE, source_of

GOOD = {"source": "source.png", "mask": "mask.png", "instruction": "Add a cat"}
ROW = json.dumps(GOOD).encode()


@pytest.fixture
def written(tmp_path: Path):
    """Write bytes as a jsonl file beside a good source and mask."""
    (tmp_path / "source.png").write_bytes(SOURCE)
    (tmp_path / "mask.png").write_bytes(MASK)

    def write(data: bytes, name: str = "tasks.jsonl") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


BROKEN = {
    "a comma too many": (b'{"source": "a.png",}', r"not JSON: .* at column \d+"),
    "single quotes": (b"{'source': 'a.png'}", r"not JSON: .* at column 2"),
    "cut off": (ROW[:30], r"not JSON: .* at column \d+"),
    "two objects": (ROW + ROW, r"not JSON: Extra data at column \d+"),
    "python's words": (b'{"mask": None}', "not JSON: .* at column 10"),
    "latin-1": (b'{"instruction": "F\xfcge hinzu"}', "not UTF-8 .byte 0xfc at column 19"),
    "a surrogate's bytes": (b'{"instruction": "\xed\xa0\xbd"}', "not UTF-8"),
    "nested": (b"[" * 100_000, "nested too deeply"),
    "a number of 5000 digits": (b'{"task_id": ' + b"9" * 5000 + b"}", "4300"),
    "a key twice": (b'{"instruction": "a", "instruction": "b"}', "the key 'instruction' stands twice"),
    "a key twice within": (b'{"mask": {"size": [1, 1], "size": [2, 2]}}', "the key 'size' stands twice"),
    "a list": (b"[1]", "holds no object but a list"),
    "a text": (b'"a"', "holds no object but a str"),
    "null": (b"null", "holds no object but a NoneType"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("alone", [True, False])
def test_a_broken_line_is_told_by_its_number_and_not_as_a_missing_column(written, name: str, alone: bool) -> None:
    line, said = BROKEN[name]
    path = written(b"\n" + line + b"\n" + (line if alone else ROW) + b"\n")
    with pytest.raises(DataError, match=rf"tasks.jsonl, line 2\): the line .*{said}") as error:
        load_tasks(source_of(path))
    assert "column for" not in str(error.value)
    assert max(map(len, str(error.value).splitlines())) < 400
    if not alone:
        assert len(load_tasks(source_of(path, on_bad_task="skip"))) == 1


def test_where_a_column_is_missing_too_the_broken_lines_are_not_forgotten(written) -> None:
    path = written(b'{"instruction": "a"}\n{"source": "a.png"\n')
    with pytest.raises(DataError, match=r"no column for 'source'.*Broken lines: 1, the first being line 2: .*JSON"):
        load_tasks(source_of(path))


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_blank_lines_are_no_part_of_a_line(written, end: bytes) -> None:
    tasks = load_tasks(source_of(written(b"\xef\xbb\xbf" + end + ROW + end + end + ROW)))
    assert [task.instruction for task in tasks] == ["Add a cat"] * 2
    assert [task.task_id for task in tasks] == ["tasks-000002", "tasks-000004"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (ROW.decode().encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + ROW.decode().encode("utf-16-be"), "UTF-16"),
        (ROW.decode().encode("utf-16-le"), "UTF-16"),
        (gzip.compress(ROW, mtime=0), "gzip"),
        (b"PAR1" + bytes(20), "set format: parquet"),
        (b"PK\x03\x04" + bytes(20), "zip"),
        (b"", "holds no task: it is empty"),
        (b"\n \n", "holds no task: it is empty"),
        (b"\xef\xbb\xbf", "holds no task: it is empty"),
        (b"[" + ROW + b", " + ROW + b"]", r"one JSON array.*jq -c '\.\[\]' tasks.json > tasks.jsonl"),
        (b"\xef\xbb\xbf" + json.dumps([GOOD] * 2, indent=2).encode(), "one JSON array"),
        (b"[\n" + ROW + b",\n" + ROW + b"\n]\n", "one JSON array"),
        (b"[]", "one JSON array"),
        (json.dumps({"tasks": [GOOD]}, indent=2).encode(), r"one JSON object over several lines.*KEY"),
    ],
)
def test_a_file_of_another_kind_is_told_as_what_it_is(written, data: bytes, said: str) -> None:
    with pytest.raises(DataError, match=rf"tasks\.json .*{said}"):
        load_tasks(source_of(written(data, "tasks.json"), "jsonl"))


@pytest.mark.parametrize("name", ["x" * 300 + ".jsonl", "a\0b.jsonl", "folder"])
@pytest.mark.parametrize("form", ["jsonl", "parquet", "compbench"])
def test_a_path_that_the_file_system_refuses_is_an_error_of_the_data(tmp_path: Path, name: str, form: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError):
        load_tasks(source_of(tmp_path / name, form), "evaluate")
