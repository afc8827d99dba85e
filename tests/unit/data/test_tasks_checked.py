"""What a check of records reads, hands on, refuses and says, by a reader made by hand."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.record import Record
from rc_grpo.data.refusals import Refusal
from rc_grpo.data.tasks import checked
from rc_grpo.images import encode_png

from .conftest import HEIGHT, MASK, SOURCE, TARGET, WIDTH, decoded, photo, png, region, rgba, source_of

GOOD = {"source": SOURCE, "mask": MASK, "instruction": "Add a cat", "kind": "add"}
SKIP = TaskSource(format="jsonl", path=Path("x"), on_bad_task="skip")


@dataclass
class Rows:
    """Records of good tasks, each changed by one mapping; counts how many were read."""

    changes: list[dict[str, Any]]
    stretch: bool = False
    read: list[int] = field(default_factory=list)

    def record(self, index: int) -> Record:
        return Record(f"row {index}", f"t{index}", GOOD | self.changes[index], Path(), stretch_mask=self.stretch)

    def __iter__(self) -> Iterator[Record]:
        for index in range(len(self.changes)):
            self.read.append(index)
            yield self.record(index)


BAD = {"instruction": ""}


def test_a_limit_stops_the_reading_after_a_chunk_and_not_at_the_end() -> None:
    rows = Rows([{}] * 200)
    assert len(checked(rows, SKIP.model_copy(update={"limit": 1}), "here")) == 1
    assert len(rows.read) == 64


def test_what_was_refused_is_kept_in_order_with_its_reason_also_by_a_slice() -> None:
    rows = Rows([BAD, {}, {"source": None}, {}])
    tasks = checked(rows, SKIP, "here")
    refused = (
        Refusal("t0", "the instruction is empty", "row 0"),
        Refusal("t2", "there is no source image", "row 2"),
    )
    assert tasks.refused == tasks[1:].refused == refused
    assert (refused[0].task_id, refused[0].reason) == ("t0", "the instruction is empty")
    assert repr(tasks) == "TaskSet(2 tasks, 2 refused)"
    assert [task.task_id for task in tasks] == ["t1", "t3"]


def test_the_warning_names_place_counts_and_the_first_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        checked(Rows([{}, BAD, {}, {"source": None}]), SKIP, "here")
    assert caplog.messages == ["here: left out 2 of 4 tasks, the first being 't1': the instruction is empty"]


def test_where_all_are_refused_the_first_reason_is_told() -> None:
    with pytest.raises(
        DataError, match="here holds no task: all 2 tasks are unusable, the first because there is no so"
    ):
        checked(Rows([{"source": None}, BAD]), SKIP, "here")


def test_the_first_bad_task_fails_also_after_good_ones() -> None:
    with pytest.raises(
        DataError, match=r"task 't2' \(row 2\): the instruction is empty\. Mend the data, or set on_bad"
    ):
        checked(Rows([{}, {}, BAD, {}]), SKIP.model_copy(update={"on_bad_task": "fail"}), "here")


def test_a_task_set_opens_no_task_that_is_not_asked_for() -> None:
    rows = Rows([BAD, {}, {}, {}])
    tasks = checked(rows, SKIP, "here")
    rows.changes[1] = rows.changes[2] = {"source": b"gone bad"}
    assert (len(tasks), len(tasks[1:]), len(tasks[3:])) == (3, 2, 0)
    assert tasks[2].task_id == tasks[1:][1].task_id == tasks[-1:][0].task_id == "t3"
    with pytest.raises(DataError, match=r"task 't1' \(row 1\): the source is not a readable image.*only now that"):
        tasks[0]


@pytest.mark.parametrize("part", ["source", "target"])
def test_an_image_whose_middle_is_broken_is_found_when_its_task_is_opened(part: str) -> None:
    broken = SOURCE[:600] + bytes(200) + SOURCE[800:]
    tasks = checked(Rows([{part: broken}]), SKIP, "here")
    with pytest.raises(DataError, match=rf"task 't0' \(row 0\): the {part} is not a readable image"):
        tasks[0]


def test_only_where_the_reader_says_so_a_mask_is_stretched() -> None:
    small = png(np.full((HEIGHT // 2, WIDTH // 2), 255, np.uint8))
    (task,) = checked(Rows([{"mask": small}], stretch=True), SKIP, "here")
    assert decoded(task.mask).shape == (HEIGHT, WIDTH)
    with pytest.raises(DataError, match="the mask is 12x16"):
        checked(Rows([{"mask": small}]), SKIP, "here")


def test_a_source_keeps_its_transparency_where_a_mask_of_its_own_is_given() -> None:
    transparent = rgba(photo(5), region())
    (task,) = checked(Rows([{"source": transparent}]), SKIP, "here")
    assert task.source == transparent
    (task,) = checked(Rows([{"source": transparent, "mask": {"bytes": None, "path": None}}]), SKIP, "here")
    assert (task.source, task.mask) == (encode_png(photo(5)), MASK)


def test_texts_are_stripped_and_empty_ones_are_none() -> None:
    changes = {"instruction": "  Add it ", "caption": " a cat\n", "kind": None, "target": TARGET}
    full, bare = checked(Rows([changes, {"caption": " "}]), SKIP, "here")
    assert (full.instruction, full.caption, full.kind, full.target) == ("Add it", "a cat", "other", TARGET)
    assert (bare.caption, bare.target) == (None, None)


def test_two_tasks_of_one_id_are_named_by_their_places_in_order(lines) -> None:
    with pytest.raises(DataError, match=r"two tasks have the id 'b': .*line 2 and .*line 4\. Make the ids unique"):
        load_tasks(source_of(lines({"task_id": "a"}, {"task_id": "b"}, {"task_id": "c"}, {"task_id": "b"})))


def test_a_small_set_is_checked_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        checked(Rows([{}] * 5), SKIP, "here")
    assert caplog.messages == []


def test_progress_is_told_every_five_seconds_and_counts_the_unusable(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(1000))
    monkeypatch.setattr("rc_grpo.data.tasks.time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with caplog.at_level(logging.INFO):
        checked(Rows([{}, BAD, *[{}] * 8]), SKIP, "here")
    # The clock is read once at the start, once a task, and once more when something is said.
    said = [message for message in caplog.messages if "checked" in message]
    assert said == [f"here: checked {done} tasks, 1 of them unusable" for done in (5, 10)]
