"""Each tracker has all of a run, by its own library without a server."""

import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import wandb
from PIL import Image

from deploy.configs import load_config
from deploy.stopping import RunStoppedError
from deploy.tracking.tracker import TrackerError
from deploy.tracking.trackers import CLASSES, Trackers, check_trackers
from rc_grpo.config import RunConfig
from tests.unit.deploy.tracking.reading import MlflowFiles, Reader, SwanlabFiles, TrackioFiles, WandbFiles

READERS: dict[str, type[Reader]] = {
    "wandb": WandbFiles,
    "mlflow": MlflowFiles,
    "swanlab": SwanlabFiles,
    "trackio": TrackioFiles,
}
STOPPED_THEN_FAILED = {"wandb": [255, 1], "mlflow": ["FAILED"], "swanlab": [3, 2], "trackio": []}


@pytest.fixture(params=CLASSES)
def tracker(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    wandb.teardown()  # its settings are read once a process


def prepared(tracker: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[RunConfig, Reader]:
    project = f"edits-{folder.name}"
    return (
        load_config("pocket", [f"output.trackers=[{tracker}]", f"output.project={project}", "name=tracked"]),
        READERS[tracker](folder, project, patch),
    )


def train(config: RunConfig, folder: Path, updates: Sequence[int], error: Exception) -> None:
    with Trackers(config, folder) as trackers:
        for update in updates:
            trackers.metrics("update", update, {"a": update})
        raise error


def test_metrics_grid_evaluation_configuration_and_summary_are_there(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, there = prepared(tracker, tmp_path, monkeypatch)
    check_trackers(config.output)
    grid = tmp_path / "grid.png"
    Image.new("RGB", (8, 4), "red").save(grid)
    with Trackers(config, tmp_path) as trackers:
        trackers.metrics("evaluation", 0, {"heldout/reward": 0.25})
        trackers.metrics("update", 1, {"reward/task_mean": 0.5})
        trackers.metrics("update", 2, {"reward/task_mean": 0.75})
        trackers.grids({1: grid})  # after the next update's metrics, as a run's
        trackers.summary(2, {"updates": 2, "heldout": {"gain": 0.1}, "final": "v2"})
    assert there.runs() == 1
    assert there.points("heldout/reward") == [(0, 0.25)]
    assert there.points("reward/task_mean") == [(1, 0.5), (2, 0.75)]
    assert there.pictures() == [(1, (8, 4))]
    assert there.group_size() == config.rollout.group_size
    assert "v2" in there.summary()
    assert there.points("summary/heldout/gain") in ([(2, 0.1)], [])
    assert json.loads((tmp_path / f"trackers/{tracker}.json").read_text())["sent"]["summary"] == 2


def test_a_resumed_run_goes_on_in_the_same_tracker_run_and_sends_no_update_twice(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, there = prepared(tracker, tmp_path, monkeypatch)
    with pytest.raises(RunStoppedError):
        train(config, tmp_path, (1, 2, 3), RunStoppedError())
    if tracker == "wandb":
        time.sleep(1.0)  # it names a start's folder by run and second
    resumed = config.model_copy(update={"rollout": config.rollout.model_copy(update={"group_size": 77})})
    with pytest.raises(OSError):
        train(resumed, tmp_path, (2, 3, 4), OSError())
    assert there.runs() == 1
    assert there.points("a") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert there.group_size() == 77
    assert there.endings() == STOPPED_THEN_FAILED[tracker]


@pytest.mark.parametrize("tracker", ["mlflow", "swanlab", "trackio"], indirect=True)
def test_two_runs_of_one_name_are_two_in_the_tracker(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, there = prepared(tracker, tmp_path, monkeypatch)
    for _ in range(2):
        with pytest.raises(OSError):
            train(config, tmp_path, (1,), OSError())
        (tmp_path / f"trackers/{tracker}.json").unlink()
    assert there.runs() == 2


@pytest.mark.parametrize("tracker", ["wandb", "swanlab"], indirect=True)
def test_without_a_key_it_is_refused_before_the_start(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = prepared(tracker, tmp_path, monkeypatch)
    check_trackers(config.output)
    monkeypatch.delenv(f"{tracker.upper()}_MODE")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(TrackerError, match=f"{tracker.upper()}_API_KEY"):
        check_trackers(config.output)
