import logging
import pickle
from collections.abc import Sequence

import pytest

from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, TaskSet, load_tasks
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld

from .conftest import MASK, SOURCE, TARGET, image_feature, source_of


def test_the_pocket_world_has_its_own_size_unless_limited():
    assert len(load_tasks(TaskSource(format="pocket"))) == 2000
    assert len(load_tasks(TaskSource(format="pocket", split="heldout"))) == 300
    tasks = load_tasks(TaskSource(format="pocket", split="heldout", limit=5))
    assert list(tasks) == list(PocketWorld("heldout", 5))


def test_a_task_set_is_an_immutable_sequence_that_survives_pickling(lines):
    tasks = load_tasks(source_of(lines({}, {}, {})))
    assert isinstance(tasks, Sequence)
    assert isinstance(tasks, TaskSet)
    assert [task.task_id for task in tasks[1:]] == ["t1", "t2"]
    assert tasks[-1] == tasks[2]
    with pytest.raises(IndexError):
        tasks[3]
    with pytest.raises(AttributeError):
        tasks.rows = ()
    assert list(pickle.loads(pickle.dumps(tasks))) == list(tasks)


def test_jsonl_gives_every_field_as_it_was_written(lines):
    path = lines({"target": "target.png", "caption": "a cat"}, {"kind": None, "target": None})
    full, bare = load_tasks(source_of(path))
    assert full == EditTask("t0", "add", SOURCE, "Add a cat", MASK, TARGET, "a cat")
    assert (bare.kind, bare.target, bare.caption) == ("other", None, None)


def test_the_column_map_renames_keys(lines):
    path = lines({"id": 7, "prompt": "Remove it"})
    (task,) = load_tasks(source_of(path, columns={"task_id": "id", "instruction": "prompt"}))
    assert (task.task_id, task.instruction) == ("7", "Remove it")


def test_a_missing_id_is_derived_from_file_and_line(lines):
    path = lines({"task_id": None}, {"task_id": ""}, {})
    assert [task.task_id for task in load_tasks(source_of(path))] == ["tasks-000001", "tasks-000002", "t2"]


@pytest.mark.parametrize(
    ("found", "kind"),
    [("add", "add"), ("Remove", "remove"), (" REPLACE ", "replace"), ("action", "other"), (3, "other")],
)
def test_kinds_are_ours_or_other(lines, found, kind):
    (task,) = load_tasks(source_of(lines({"kind": found})))
    assert task.kind == kind


def test_an_unknown_column_names_the_columns_there_are(lines):
    with pytest.raises(
        DataError, match=r"no column 'prompt' \(mapped to 'instruction'\).*are: instruction, kind, mask"
    ):
        load_tasks(source_of(lines({}), columns={"instruction": "prompt"}))


def test_an_unknown_field_names_the_fields_there_are(lines):
    with pytest.raises(DataError, match=r"'prompt', which is no field.*task_id, kind, source"):
        load_tasks(source_of(lines({}), columns={"prompt": "instruction"}))


def test_a_file_without_a_required_field_says_how_to_name_it(tmp_path):
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"image": "a.png", "instruction": "x"}\n')
    with pytest.raises(
        DataError, match=r"no column for 'source'.*are: image, instruction.*columns: \{source: COLUMN\}"
    ):
        load_tasks(source_of(path))


@pytest.mark.parametrize("form", ["jsonl", "parquet", "compbench"])
def test_a_missing_path_is_named(tmp_path, form):
    with pytest.raises(DataError, match="nowhere"):
        load_tasks(source_of(tmp_path / "nowhere", form), "evaluate")


def test_an_empty_file_is_an_error(tmp_path, table):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    with pytest.raises(DataError, match="holds no task"):
        load_tasks(source_of(empty))
    with pytest.raises(DataError, match="holds no task"):
        load_tasks(source_of(table(source=[], instruction=[], mask=[])))


BAD = {
    "no instruction": ({"instruction": " "}, "the instruction is empty"),
    "no source": ({"source": None}, "there is no source image"),
    "missing source": ({"source": "gone.png"}, "the source: no file .*gone.png"),
    "unreadable source": ({"source": "text.png"}, "the source is not a readable image"),
    "cut off source": ({"source": "cut.png"}, "the source is not a readable image"),
    "missing target": ({"target": "gone.png"}, "the target: no file"),
    "unreadable target": ({"target": "text.png"}, "the target is not a readable image"),
    "missing mask": ({"mask": "gone.png"}, "the mask: no file"),
    "unreadable mask": ({"mask": "text.png"}, "the mask is not a readable image"),
    "no mask": ({"mask": None}, "there is no mask, and the source has no alpha channel"),
    "empty mask": ({"mask": "empty.png"}, "the mask covers no pixel"),
    "mask of another size": ({"mask": "small.png"}, r"the mask is 12x16, the source 24x32 \(height x width\)"),
    "mask of another type": ({"mask": 5}, "the mask is bytes, a path or .*, not a number \\(5\\)"),
    "escape upwards": ({"source": "a/../../secret.png"}, "leaves the data set's folder"),
    "absolute path": ({"mask": "/etc/hostname"}, "leaves the data set's folder"),
    "broken RLE": ({"mask": {"size": [24, 32], "counts": [5, 5]}}, "add up to 10, not to 24x32"),
}


@pytest.fixture
def bad_files():
    from .conftest import np, png

    return {
        "text.png": b"no image at all",
        "cut.png": SOURCE[:-200],
        "empty.png": png(np.zeros((24, 32), np.uint8)),
        "small.png": png(np.full((12, 16), 255, np.uint8)),
        "../secret.png": SOURCE,
    }


@pytest.mark.parametrize("name", BAD)
def test_a_bad_task_fails_with_its_name_its_place_the_reason_and_the_way_out(lines, bad_files, name):
    change, reason = BAD[name]
    path = lines({}, change, files=bad_files)
    with pytest.raises(DataError, match=rf"task 't1' \(.*tasks.jsonl, line 2\): .*{reason}.*on_bad_task: skip"):
        load_tasks(source_of(path))


def test_skipped_tasks_are_listed_and_counted_in_one_warning(lines, bad_files, caplog):
    changes = [change for change, _ in BAD.values()]
    path = lines({}, *changes, {}, files=bad_files)
    with caplog.at_level(logging.WARNING):
        tasks = load_tasks(source_of(path, on_bad_task="skip"))
    assert [task.task_id for task in tasks] == ["t0", f"t{len(BAD) + 1}"]
    assert [refusal.task_id for refusal in tasks.refused] == [f"t{i + 1}" for i in range(len(BAD))]
    assert tasks.refused[0].reason == "the instruction is empty"
    (warning,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert f"left out {len(BAD)} of {len(BAD) + 2} tasks" in warning


def test_a_broken_line_is_one_bad_task(lines):
    path = lines({}, {})
    path.write_text(path.read_text() + "{not json\n[1]\n")
    tasks = load_tasks(source_of(path, on_bad_task="skip"))
    assert len(tasks) == 2
    assert [refusal.task_id for refusal in tasks.refused] == ["tasks-000003", "tasks-000004"]
    assert "not JSON" in tasks.refused[0].reason
    assert "holds no object but a list" in tasks.refused[1].reason


def test_when_all_tasks_are_skipped_there_is_no_data_set(lines):
    with pytest.raises(DataError, match="holds no task: all 2 tasks are unusable, the first because the instruction"):
        load_tasks(source_of(lines({"instruction": ""}, {"instruction": ""}), on_bad_task="skip"))


def test_duplicate_ids_are_an_error_even_where_bad_tasks_are_skipped(lines):
    path = lines({}, {"task_id": "t0"})
    with pytest.raises(DataError, match=r"two tasks have the id 't0': .*line 1 and .*line 2"):
        load_tasks(source_of(path, on_bad_task="skip"))


def test_limit_counts_usable_tasks(lines):
    path = lines({"instruction": ""}, {}, {}, {"instruction": ""})
    tasks = load_tasks(source_of(path, on_bad_task="skip", limit=2))
    assert [task.task_id for task in tasks] == ["t1", "t2"]
    assert len(tasks.refused) == 1


def test_images_are_read_when_a_task_is_asked_for(lines, tmp_path):
    other = TARGET
    tasks = load_tasks(source_of(lines({})))
    (tmp_path / "source.png").write_bytes(other)
    assert tasks[0].source == other
    (tmp_path / "source.png").write_bytes(b"gone bad")
    with pytest.raises(DataError, match=r"task 't0' .*the source is not a readable image"):
        tasks[0]


def test_every_mask_is_checked_before_the_first_task_is_asked_for(lines, bad_files):
    path = lines(*[{}] * 100, {"mask": "empty.png"}, files=bad_files)
    with pytest.raises(DataError, match="'t100'"):
        load_tasks(source_of(path))


def test_formats_of_fixed_layout_take_no_column_map(compbench):
    with pytest.raises(DataError, match="fields of its own"):
        load_tasks(source_of(compbench(), "compbench", columns={"source": "x"}), "evaluate")
    with pytest.raises(DataError, match="fields of its own"):
        load_tasks(TaskSource(format="pocket", columns={"source": "x"}))


def test_parquet_alike_with_image_structs_and_plain_binary(table):
    text = {"instruction": ["a", "b"], "task_id": ["x", "y"], "kind": ["add", "remove"], "caption": ["c", None]}
    sources, masks, targets = [SOURCE, TARGET], [MASK, MASK], [TARGET, None]
    structs = table(
        "a.parquet",
        source=image_feature(*sources),
        mask=image_feature(*masks),
        target=[{"bytes": TARGET, "path": None}, {"bytes": None, "path": None}],
        **text,
    )
    binary = table("b.parquet", source=sources, mask=masks, target=targets, **text)
    tasks = list(load_tasks(source_of(structs)))
    assert tasks == list(load_tasks(source_of(binary)))
    assert tasks[0] == EditTask("x", "add", SOURCE, "a", MASK, TARGET, "c")
    assert tasks[1] == EditTask("y", "remove", TARGET, "b", MASK, None, None)


def test_a_struct_without_bytes_names_a_file_in_the_folder(table, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "s.png").write_bytes(SOURCE)
    path = table(source=[{"bytes": None, "path": "images/s.png"}], mask=[MASK], instruction=["a"])
    assert load_tasks(source_of(path))[0].source == SOURCE
    path = table(source=[{"bytes": None, "path": "../s.png"}], mask=[MASK], instruction=["a"])
    with pytest.raises(DataError, match="leaves the data set's folder"):
        load_tasks(source_of(path))


@pytest.mark.parametrize("keep_bytes", [0, 1 << 20])
def test_a_folder_of_parquet_is_one_data_set_whatever_its_row_groups(table, tmp_path, monkeypatch, keep_bytes):
    monkeypatch.setattr("rc_grpo.data.formats.parquet._KEEP_BYTES", keep_bytes)
    for part in ("one", "two"):
        names = [f"{part} {i}" for i in range(40)]
        table(f"d/{part}.parquet", 17, instruction=names, source=[SOURCE] * 40, mask=[MASK] * 40)
    tasks = load_tasks(source_of(tmp_path / "d", "parquet"))
    if keep_bytes == 0:
        monkeypatch.setattr("rc_grpo.data.formats.parquet._row_group", None)
    assert [tasks[i].instruction for i in (0, 16, 39, 40, 79)] == ["one 0", "one 16", "one 39", "two 0", "two 39"]
    assert tasks[57].task_id == "two-000017"
    assert tasks[57].instruction == "two 17"


def test_parquet_files_of_one_folder_must_agree(table, tmp_path):
    table("d/one.parquet", instruction=["a"], source=[SOURCE], mask=[MASK])
    table("d/two.parquet", instruction=["a"], source=[SOURCE])
    with pytest.raises(DataError, match="other columns"):
        load_tasks(source_of(tmp_path / "d", "parquet"))


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"x\.parquet is not a readable parquet file"):
        load_tasks(source_of(tmp_path / "x.parquet"))


def test_magicbrush_is_read_by_a_column_map_alone(table):
    from .conftest import photo, region, rgba

    mask = rgba(photo(1), transparent=region())
    path = table(
        img_id=["1"],
        turn_index=[1],
        source_img=image_feature(SOURCE),
        mask_img=image_feature(mask),
        instruction=["let it rain"],
        target_img=image_feature(TARGET),
    )
    columns = {"source": "source_img", "mask": "mask_img", "target": "target_img"}
    (task,) = load_tasks(source_of(path, columns=columns))
    assert task == EditTask("data-000000", "other", SOURCE, "let it rain", MASK, TARGET, None)


def test_humanedit_is_read_by_a_column_map_alone(table):
    from .conftest import photo, region, rgba

    path = table(
        IMAGE_ID=["a", "b"],
        EDITING_TYPE=["Add", "Counting"],
        EDITING_INSTRUCTION=["Add a hat", "Make it two"],
        OUTPUT_DESCRIPTION=["a hat", "two of them"],
        INPUT_IMG=image_feature(SOURCE, SOURCE),
        MASK_IMG=image_feature(rgba(photo(1), region()), SOURCE),
        OUTPUT_IMG=image_feature(TARGET, TARGET),
    )
    columns = {
        "task_id": "IMAGE_ID",
        "kind": "EDITING_TYPE",
        "source": "INPUT_IMG",
        "mask": "MASK_IMG",
        "target": "OUTPUT_IMG",
        "instruction": "EDITING_INSTRUCTION",
        "caption": "OUTPUT_DESCRIPTION",
    }
    tasks = load_tasks(source_of(path, columns=columns, on_bad_task="skip"))
    assert list(tasks) == [EditTask("a", "add", SOURCE, "Add a hat", MASK, TARGET, "a hat")]
    assert "colour picture without transparency" in tasks.refused[0].reason


def test_a_long_check_says_how_far_it_is(lines, monkeypatch, caplog):
    monkeypatch.setattr("rc_grpo.data.tasks._PROGRESS_S", 0.0)
    with caplog.at_level(logging.INFO):
        load_tasks(source_of(lines({}, {})))
    assert "checked 2 tasks, 0 of them unusable" in caplog.text
