"""A run in W&B, by its own library in offline mode."""

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import wandb
from PIL import Image

from deploy.configs import load_config
from deploy.stopping import RunStoppedError
from deploy.tracking.tracker import TrackerError
from deploy.tracking.trackers import Trackers, check_trackers
from tests.unit.deploy.tracking.wandb_files import rows, starts

CONFIG = load_config("pocket", ["output.trackers=[wandb]", "output.project=edits", "name=tracked"])


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    wandb.teardown()  # its settings are read once a process


def test_metrics_grid_evaluation_configuration_and_summary_are_there(tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    Image.new("RGB", (8, 4), "red").save(grid)
    with Trackers(CONFIG, tmp_path) as trackers:
        trackers.metrics("evaluation", 0, {"heldout/reward": 0.25})
        trackers.metrics("update", 1, {"reward/task_mean": 0.5})
        trackers.metrics("update", 2, {"reward/task_mean": 0.75})
        trackers.grids({1: grid})
        trackers.summary(2, {"updates": 2, "heldout": {"gain": 0.1}})
    (start,) = starts(tmp_path / "trackers")
    seen = rows(start)
    assert [(row["update"], row.get("heldout/reward"), row.get("reward/task_mean")) for row in seen] == [
        (0, 0.25, None),
        (1, None, 0.5),
        (2, None, 0.75),
        (1, None, None),
    ]
    assert (seen[-1]["candidates.width"], seen[-1]["candidates.height"]) == (8, 4)
    assert list(tmp_path.glob(f"trackers/wandb/offline-run-*/files/{seen[-1]['candidates.path']}"))
    (run,) = (record.run for record in start if record.HasField("run"))
    assert (run.project, run.display_name) == ("edits", "tracked")
    assert "rollout" in {item.key for item in run.config.update}
    summed = {item.key or ".".join(item.nested_key) for record in start for item in record.summary.update}
    assert {"summary/updates", "summary/heldout/gain"} <= summed


def train(folder: Path, updates: Sequence[int], error: Exception | None = None) -> None:
    with Trackers(CONFIG, folder) as trackers:
        for update in updates:
            trackers.metrics("update", update, {"a": update})
        if error is not None:
            raise error


def test_a_resumed_run_goes_on_in_the_same_tracker_run_and_sends_no_update_twice(tmp_path: Path) -> None:
    with pytest.raises(RunStoppedError):
        train(tmp_path, (1, 2, 3), RunStoppedError())
    time.sleep(1.0)  # W&B names a start's folder by run and second
    train(tmp_path, (2, 3, 4))
    first, second = starts(tmp_path / "trackers")
    assert [[row["a"] for row in rows(start)] for start in (first, second)] == [[1, 2, 3], [4]]
    ids = {record.run.run_id for record in (*first, *second) if record.HasField("run")}
    assert len(ids) == 1
    assert [record.exit.exit_code for record in (*first, *second) if record.HasField("exit")] == [255, 0]


def test_without_a_key_it_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(CONFIG.output)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(TrackerError, match="WANDB_API_KEY"):
        check_trackers(CONFIG.output)
