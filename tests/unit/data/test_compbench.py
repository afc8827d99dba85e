import logging

import numpy as np
import pytest

from rc_grpo.data import DataError, load_tasks
from rc_grpo.messages import EditTask

from .conftest import MASK, SOURCE, TARGET, decoded, image_feature, png, source_of


def hub(table, **more):
    families = ["add", "remove", "replace", "action"]
    return table(
        task=families,
        image_path=["a/0/0.png"] * 4,
        input_image=image_feature(*[SOURCE] * 4),
        edited_image=image_feature(*[TARGET] * 4),
        mask=[*image_feature(*[MASK] * 3), None],
        instruction=["do it"] * 4,
        caption=["a|b", "", "c", ""],
        **more,
    )


def test_the_local_layout_is_read_with_or_without_naming_its_tasks_folder(compbench):
    root = compbench()
    tasks = load_tasks(source_of(root, "compbench"), "evaluate")
    assert list(tasks) == list(load_tasks(source_of(root.parent, "compbench"), "evaluate"))
    assert [task.kind for task in tasks] == ["add", "add", "remove", "remove", "replace", "replace"]
    assert tasks[1] == EditTask("add/00000001/0/00001.png", "add", SOURCE, "add it", MASK, TARGET, "a cat")


def test_compbench_is_refused_for_training_unless_forced(compbench, table, caplog):
    for source in (source_of(compbench(), "compbench"), source_of(hub(table), on_bad_task="skip")):
        with pytest.raises(DataError, match=r"CompBench, the benchmark.*allow_benchmark: true"):
            load_tasks(source)
        forced = source.model_copy(update={"allow_benchmark": True})
        with caplog.at_level(logging.WARNING):
            assert len(load_tasks(forced)) >= 3
        assert "training on CompBench" in caplog.text
        caplog.clear()


def test_a_further_column_or_a_column_map_does_not_launder_the_benchmark(table):
    with pytest.raises(DataError, match="the benchmark"):
        load_tasks(source_of(hub(table, extra=[1, 2, 3, 4]), columns={"source": "input_image"}))


def test_other_data_with_some_of_its_columns_are_not_the_benchmark(table):
    path = table(input_image=[SOURCE], mask=[MASK], instruction=["a"])
    assert len(load_tasks(source_of(path, columns={"source": "input_image"}))) == 1


def test_the_hubs_files_are_read_without_a_column_map(table):
    tasks = load_tasks(source_of(hub(table), on_bad_task="skip"), "evaluate")
    assert tasks[0] == EditTask("add/a/0/0.png", "add", SOURCE, "do it", MASK, TARGET, "a|b")
    assert [task.kind for task in tasks] == ["add", "remove", "replace"]
    assert tasks[1].caption is None
    (refusal,) = tasks.refused
    assert refusal.task_id == "action/a/0/0.png"
    assert "family 'action' is not evaluated" in refusal.reason


def test_a_mask_of_another_size_is_scaled_as_the_benchmarks_script_does(compbench):
    small = np.zeros((12, 16), np.uint8)
    small[:6] = 255
    tasks = load_tasks(source_of(compbench(1, ["add"], mask=png(small)), "compbench"), "evaluate")
    mask = decoded(tasks[0].mask)
    assert mask.shape == (24, 32)
    assert mask[:12].all()
    assert not mask[12:].any()


def test_a_missing_family_is_told(compbench, caplog):
    with caplog.at_level(logging.WARNING):
        load_tasks(source_of(compbench(1, ["add"]), "compbench"), "evaluate")
    assert "no remove, replace" in caplog.text


def test_a_missing_image_is_a_bad_task(compbench):
    root = compbench(1)
    (root / "remove" / "edited_image" / "00000000" / "0" / "00000.png").unlink()
    with pytest.raises(DataError, match=r"'remove/00000000/0/00000.png' .*entry 0\): the target: no file"):
        load_tasks(source_of(root, "compbench"), "evaluate")


def test_metadata_that_name_files_outside_are_refused(compbench):
    root = compbench(1, ["add"])
    (root / "add" / "metadata.json").write_text('[{"image_path": "../../../x.png", "instruction": "a"}]')
    with pytest.raises(DataError, match="leaves the data set's folder"):
        load_tasks(source_of(root, "compbench"), "evaluate")


@pytest.mark.parametrize(("content", "reason"), [("{", "is not JSON"), ('{"a": 1}', "must hold a list of objects")])
def test_broken_metadata_are_named(compbench, content, reason):
    root = compbench(1)
    (root / "add" / "metadata.json").write_text(content)
    with pytest.raises(DataError, match=rf"metadata\.json {reason}"):
        load_tasks(source_of(root, "compbench"), "evaluate")
