"""All bad tasks are named at once, kind by kind, and a check gets every fault without an error."""

import json

import pytest

from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, faults, load_tasks
from rc_grpo.data.refusals import Refusal, by_kind, in_words

from .conftest import MASK, SOURCE, TARGET, source_of


def refusals(*reasons: str) -> list[Refusal]:
    return [Refusal(f"t{i}", reason, f"/d/x.jsonl, line {i + 1}") for i, reason in enumerate(reasons)]


def test_every_bad_task_is_named_with_row_and_reason(lines) -> None:
    path = lines({}, {"instruction": ""}, {"source": "gone.png"}, {}, {"mask": "lost.png"}, {"instruction": None})
    with pytest.raises(DataError) as error:
        load_tasks(source_of(path))
    head, *said = str(error.value).splitlines()
    assert head.startswith(f"{path}: 4 of 6 tasks are unusable. Mend the data, or set on_bad_task: skip")
    assert [line.split(":")[0] for line in said] == [
        f"  task 't{number}' ({path}, line {number + 1})" for number in (1, 5, 2, 4)
    ]
    assert said[0].endswith("the instruction is empty")
    assert "gone.png" in said[2]
    assert "lost.png" in said[3]


def test_ten_are_shown_in_full_and_the_rest_is_counted_by_kind() -> None:
    refused = refusals(*["the instruction is empty"] * 30, *[f"no file /d/{i}.png" for i in range(20)], "odd")
    said = in_words(refused, 100, "/d").splitlines()
    assert said[0].startswith("/d: 51 of 100 tasks are unusable")
    assert [line for line in said if line.startswith("  task")] == [
        *(f"  {refusal}" for refusal in refused[:8]),
        f"  {refused[30]}",
        f"  {refused[50]}",
    ]
    assert [line for line in said if "more like" in line] == [
        "  and 22 more like 't0': the instruction is empty",
        "  and 19 more like 't30': no file /d/0.png",
    ]


def test_of_more_than_ten_kinds_the_rest_is_told_in_a_line_each() -> None:
    kinds = ["abcdefghijkl"[i] * 3 for i in range(12)]
    said = in_words(refusals(*kinds), 12, "/d").splitlines()
    assert len([line for line in said if line.startswith("  task")]) == 10
    assert said[-1] == "  1 more like 't11': lll"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (
            "the mask is 3x4, the source 5x6 (height x width)",
            "the mask is 30x4, the source 5x61 (height x width)",
            True,
        ),
        ("the source: no file /a/b.png", "the source: no file /c/de.png", True),
        ("the source: no file /a/b.png", "the target: no file /a/b.png", False),
        ("the kind is a list (['a'])", "the kind is a list (['bc', 'd'])", True),
    ],
)
def test_reasons_that_differ_in_names_and_numbers_are_one_kind(one: str, other: str, same: bool) -> None:
    assert (len(by_kind(refusals(one, other))) == 1) == same


def test_repeated_ids_are_told_beside_the_other_faults_and_cannot_be_skipped(lines) -> None:
    path = lines({"task_id": "a"}, {"task_id": "a"}, {"instruction": ""}, {"task_id": "a"})
    with pytest.raises(DataError, match="3 of 4 tasks are unusable") as error:
        load_tasks(source_of(path))
    assert str(error.value).count("two tasks have the id 'a'") == 2
    assert "the instruction is empty" in str(error.value)
    with pytest.raises(DataError, match="two tasks have the id 'a'"):
        load_tasks(source_of(path, on_bad_task="skip"))


@pytest.mark.parametrize("on_bad_task", ["fail", "skip"])
def test_a_check_gets_every_fault_and_no_error(lines, on_bad_task: str) -> None:
    path = lines({}, {"instruction": ["a"]}, {"task_id": "t0"}, {"source": "gone.png"})
    path.write_text(path.read_text() + "{broken\n")
    found = faults(source_of(path, on_bad_task=on_bad_task))
    assert {(fault.place, fault.task_id) for fault in found} == {
        (f"{path}, line 2", "t1"),
        (f"{path}, line 4", "t3"),
        (f"{path}, line 5", "tasks-000005"),
        (f"{path}, line 3", "t0"),
    }


def test_a_check_of_good_data_finds_nothing(lines, table, compbench) -> None:
    assert faults(source_of(lines({}, {}))) == ()
    assert faults(source_of(table(source=[SOURCE], mask=[MASK], instruction=["a"], target=[TARGET]))) == ()
    assert faults(source_of(compbench(), "compbench"), "evaluate") == ()
    assert faults(TaskSource(format="pocket")) == ()


def test_what_cannot_be_read_at_all_is_one_fault_of_the_whole(lines, compbench, tmp_path) -> None:
    (tmp_path / "array.json").write_text(json.dumps([{"source": "a"}]))
    cases: list[tuple[TaskSource, str]] = [
        (source_of(tmp_path / "nowhere.jsonl"), "no file"),
        (source_of(tmp_path / "array.json", "jsonl"), "JSON array"),
        (source_of(lines({}), columns={"source": "nope"}), "no column 'nope'"),
        (source_of(compbench(), "compbench"), "the benchmark"),
        (TaskSource(format="pocket", columns={"source": "x"}), "fields of its own"),
    ]
    for source, said in cases:
        (fault,) = faults(source)
        assert (fault.task_id, fault.place) == ("", str(source.path or "pocket"))
        assert said in fault.reason


def test_an_unreadable_target_in_parquet_is_found_by_the_check(table) -> None:
    path = table(source=[SOURCE] * 2, mask=[MASK] * 2, instruction=["a", "b"], target=[TARGET, b"gone bad"])
    with pytest.raises(DataError, match=r"row 1.*the target is not a readable image"):
        load_tasks(source_of(path))
