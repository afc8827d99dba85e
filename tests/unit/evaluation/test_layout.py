import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rc_grpo.data import DataError, load_tasks
from rc_grpo.durable import write_whole
from rc_grpo.evaluation.compbench.frames import Originals
from rc_grpo.evaluation.compbench.layout import Benchmark, Edits, Sample, write_benchmark
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld


@pytest.fixture
def tasks():
    return list(PocketWorld("heldout", 5))


@pytest.fixture
def folder(tmp_path, tasks):
    write_benchmark(tmp_path, tasks)
    return tmp_path


def test_what_is_written_in_the_layout_is_read_back_as_it_was(folder, tasks):
    benchmark = Benchmark.open(folder)
    by_id = {f"{task.kind}/{task.task_id}.png": task for task in tasks}
    assert {sample.task_id for sample in benchmark.samples} == set(by_id)
    for sample in benchmark.samples:
        task = by_id[sample.task_id]
        assert benchmark.originals(sample) == Originals(task.source, task.mask, task.target)
        assert (sample.family, sample.caption) == (task.kind, task.caption)
    loaded = {task.task_id: task for task in load_tasks(benchmark.source, "evaluate")}
    assert {name: task.instruction for name, task in loaded.items()} == {
        name: task.instruction for name, task in by_id.items()
    }


def test_the_metadata_are_the_download_scripts(folder):
    (entry, *_) = json.loads((folder / "tasks" / "remove" / "metadata.json").read_text())
    assert set(entry) == {"image_path", "instruction", "caption"}
    for part in ("input_image", "edited_image", "mask"):
        assert (folder / "tasks" / "remove" / part / entry["image_path"]).is_file()


def test_the_hubs_files_give_the_same_samples(tmp_path, folder, tasks):
    picked = list(tasks)
    rows = {
        "task": [task.kind for task in picked] + ["action"],
        "image_path": [f"{task.task_id}.png" for task in picked] + ["x.png"],
        "instruction": [task.instruction for task in picked] + ["jump"],
        "caption": [task.caption for task in picked] + [""],
    }
    for column, field in (("input_image", "source"), ("edited_image", "target"), ("mask", "mask")):
        rows[column] = [{"bytes": getattr(task, field), "path": None} for task in picked] + [None]
    hub = tmp_path / "hub"
    hub.mkdir()
    pq.write_table(pa.table(rows), hub / "train-00000.parquet")
    benchmark, local = Benchmark.open(hub), Benchmark.open(folder / "tasks")
    of_hub = {sample.task_id: benchmark.originals(sample) for sample in benchmark.samples}
    assert of_hub == {sample.task_id: local.originals(sample) for sample in local.samples}
    assert benchmark.results == hub / "editing_results"


def test_other_parquet_files_are_not_the_benchmark(tmp_path):
    pq.write_table(pa.table({"a": [1], "source": [b""], "mask": [b""], "instruction": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="hub's columns of CompBench"):
        Benchmark.open(tmp_path)


@pytest.mark.parametrize("inner", ["", "tasks"])
def test_edits_go_where_the_script_looks_for_them(folder, inner):
    benchmark = Benchmark.open(folder / inner)
    edits = Edits(benchmark.results, "mine")
    sample = Sample("add/h/0/1.png", "add", "h/0/1.png", None, 0)
    # eval_all.py: {results_root}/{model} + /{model}_local/{task} + /{image_path}
    assert edits.path(sample) == folder / "editing_results" / "mine" / "mine_local" / "add" / "h" / "0" / "1.png"


@pytest.mark.parametrize("name", ["../../../x.png", "/etc/x.png"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leaves"):
        Edits(tmp_path, "mine").path(Sample("add/x", "add", name, None, 0))


def test_a_model_that_cannot_name_a_folder_is_refused(tmp_path):
    for name in ("", "../x", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="--model"):
            Edits(tmp_path, name)


def test_an_entry_without_a_name_is_a_sample_that_says_so(folder):
    path = folder / "tasks" / "add" / "metadata.json"
    path.write_text(json.dumps([{"instruction": "x"}]))
    benchmark = Benchmark.open(folder)
    nameless = next(sample for sample in benchmark.samples if sample.family == "add")
    for attempt in (lambda: benchmark.originals(nameless), lambda: Edits(folder, "m").path(nameless)):
        with pytest.raises(ValueError, match="no image_path"):
            attempt()


def test_a_missing_target_leaves_the_sample_and_a_missing_source_does_not(folder):
    benchmark = Benchmark.open(folder)
    sample = benchmark.samples[0]
    (folder / "tasks" / sample.family / "edited_image" / sample.name).unlink()
    assert benchmark.originals(sample).target is None
    (folder / "tasks" / sample.family / "input_image" / sample.name).unlink()
    with pytest.raises(ValueError, match="the source: cannot read"):
        benchmark.originals(sample)


def test_a_benchmark_is_not_written_over_another(folder, tasks):
    with pytest.raises(FileExistsError, match="holds a benchmark already"):
        write_benchmark(folder, tasks)


def test_a_task_of_no_family_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'t' \\(other\\) is not one of CompBench's"):
        write_benchmark(tmp_path, [EditTask("t", "other", b"", "do", b"", b"")])


def test_an_unfinished_file_is_no_edit_and_is_overwritten(tmp_path):
    edits = Edits(tmp_path, "mine")
    path = edits.path(Sample("add/x.png", "add", "x.png", None, 0))
    path.parent.mkdir(parents=True)
    path.with_name(".x.png.unfinished").write_bytes(b"half a")
    assert not edits.any()
    write_whole(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert edits.any()
    assert [file.name for file in path.parent.iterdir()] == ["x.png"]
