"""Further source images of a task: in the formats that name them, in their order, counted, and refused by name."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.fingerprint import Fingerprint

from .conftest import MASK, SOURCE, TARGET, image_feature, photo, png, source_of

FIRST, SECOND, THIRD = (png(photo(seed, 20, 40)) for seed in (3, 4, 5))
FILES = {"a.png": FIRST, "b.png": SECOND, "c.png": THIRD}


def test_lines_list_them_in_their_order(lines) -> None:
    path = lines({"references": ["b.png", "a.png"]}, {"references": "c.png"}, {"references": []}, {}, files=FILES)
    tasks = load_tasks(source_of(path))
    assert [task.references for task in tasks] == [(SECOND, FIRST), (THIRD,), (), ()]
    assert {task.source for task in tasks} == {SOURCE}


def test_parquet_lists_images_or_has_one_a_cell(table, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(FIRST)
    same = {"source": image_feature(SOURCE), "mask": image_feature(MASK), "instruction": ["Add a cat"]}
    embedded = [image_feature(FIRST, SECOND), [FIRST, SECOND], image_feature(FIRST)[0], ["a.png"], None]
    kinds = [None, None, None, None, pa.list_(pa.string())]
    found = []
    for number, (cell, kind) in enumerate(zip(embedded, kinds, strict=True)):
        path = table(f"{number}.parquet", shown=pa.array([cell], type=kind), **same)
        (task,) = load_tasks(source_of(path, columns={"references": "shown"}))
        found.append(task.references)
    assert found == [(FIRST, SECOND), (FIRST, SECOND), (FIRST,), (FIRST,), ()]


@pytest.mark.parametrize(
    ("references", "said"),
    [
        (["a.png", "gone.png"], "the second reference: no file"),
        (["broken.png"], "the first reference is not a readable image"),
        (["a.png", "a.png", "text.png"], "the third reference is not a readable image: it begins with"),
        (["a.png", None], "the second reference is empty; take it out of the list"),
        (["../a.png"], "leaves the data set's folder"),
        ([7], "the first reference is bytes, a path or {bytes, path}, not"),
        ({"file": "a.png"}, "the reference is bytes, a path or {bytes, path}, not"),
        (["a.png"] * 4, "the task has 5 source images with its references, and 4 are the most"),
    ],
)
def test_what_is_none_is_refused_with_row_and_field(lines, references: Any, said: str) -> None:
    files = FILES | {"broken.png": FIRST[:60], "text.png": b"no image"}
    path = lines({"references": ["a.png", "b.png", "c.png"]}, {"references": references}, files=files)
    with pytest.raises(DataError, match=rf"task 't1' \({re.escape(str(path))}, line 2\): .*{re.escape(said)}"):
        load_tasks(source_of(path))
    assert len(load_tasks(source_of(path, on_bad_task="skip"))) == 1


def test_an_editor_is_asked_about_the_number_of_sources_and_refuses_the_row(lines) -> None:
    path = lines({}, {"references": ["a.png", "b.png"]}, files=FILES)
    asked = []

    def objection(instruction: str, sources: int) -> str | None:
        asked.append(sources)
        return "too many" if sources > 2 else None

    with pytest.raises(DataError, match=r"task 't1' \(.*line 2\): too many"):
        load_tasks(source_of(path), objection=objection)
    assert asked == [1, 3]


def test_they_count_in_a_tasks_fingerprint_and_tasks_without_any_keep_theirs(lines) -> None:
    several = {"references": ["a.png", "b.png"]}

    def of(change: dict[str, Any], **files: bytes) -> Fingerprint:
        return Fingerprint.of(load_tasks(source_of(lines({}, change, files=FILES | files))))

    before = of(several)
    assert [len(digest.split("-")) for digest in before.tasks.values()] == [4, 5]
    for change in ({"references": ["b.png", "a.png"]}, {"references": ["a.png"]}, {}):
        assert before.changes(of(change)) == "1 changed ('t1': references)"
        assert of(change).changes(before) == "1 changed ('t1': references)"
    assert before.changes(of(several, **{"b.png": TARGET})) == "1 changed ('t1': references)"
    assert before.changes(of(several)) is None
    assert of({}).tasks["t0"] == before.tasks["t0"]
