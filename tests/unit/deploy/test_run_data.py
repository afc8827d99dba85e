"""A run goes on, and a group is replayed, on the data that they began with; or it is said which tasks are others."""

import json
import logging
from pathlib import Path

import pytest

from deploy.records.data import changes_of_task, fingerprints, keep
from deploy.records.folder import DATA, RunFolder
from rc_grpo.config import ConfigError, TaskSource
from rc_grpo.data import TaskSet, load_tasks
from rc_grpo.pocket.world import PocketWorld

WORLD = PocketWorld("train", 3)


@pytest.fixture
def tasks(tmp_path: Path):
    """Write three tasks, some of their masks exchanged, and load them."""

    def load(*, swapped: bool = False, left_out: int = 0) -> TaskSet:
        rows = []
        for number, task in enumerate(WORLD):
            mask = WORLD[2].mask if swapped and number == 1 else task.mask
            for name, data in ((f"s{number}.png", task.source), (f"m{number}.png", mask)):
                (tmp_path / name).write_bytes(data)
            rows.append({"task_id": f"t{number}", "source": f"s{number}.png", "mask": f"m{number}.png"})
        path = tmp_path / "tasks.jsonl"
        kept = [json.dumps(row | {"instruction": "Add a cat"}) for row in rows[: 3 - left_out]]
        path.write_text("\n".join(kept) + "\n")
        return load_tasks(TaskSource(format="jsonl", path=path))

    return load


@pytest.fixture
def begun(tmp_path: Path, tasks) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    keep(folder, fingerprints(folder, tasks(), tasks()[:1], resume=False))
    return folder


def test_unchanged_data_are_gone_on_with(begun: RunFolder, tasks) -> None:
    fingerprints(begun, tasks(), tasks()[:1], resume=True)
    assert changes_of_task(begun, tasks(), "t1") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"swapped": True}, r"data.train has changed since .*run began: 1 changed \('t1': mask\)"),
        ({"left_out": 1}, r"data.train has changed since .*run began: 1 removed \('t2'\)"),
    ],
)
def test_changed_data_are_refused_by_task_and_with_the_ways_out(begun: RunFolder, tasks, change, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"{said}.*remove .*{DATA}"):
        fingerprints(begun, tasks(**change), (), resume=True)


def test_held_out_data_count_too(begun: RunFolder, tasks) -> None:
    with pytest.raises(ConfigError, match=r"data.heldout has changed .* 1 added \('t1'\)"):
        fingerprints(begun, tasks(), tasks()[:2], resume=True)


def test_without_fingerprints_nothing_is_compared_and_that_is_told(
    begun: RunFolder, tasks, caplog: pytest.LogCaptureFixture
) -> None:
    (begun.path / DATA).unlink()
    with caplog.at_level(logging.WARNING):
        fingerprints(begun, tasks(swapped=True), (), resume=True)
    assert "whether its data have changed is unknown" in caplog.text
    assert changes_of_task(begun, tasks(swapped=True), "t1") == []


def test_what_of_a_task_has_changed_is_told(begun: RunFolder, tasks) -> None:
    now = tasks(swapped=True)
    assert changes_of_task(begun, now, "t1") == ["mask"]
    assert changes_of_task(begun, now, "t0") == []
    assert changes_of_task(begun, load_tasks(TaskSource(format="pocket", limit=2)), "pocket-train-00000") == []
