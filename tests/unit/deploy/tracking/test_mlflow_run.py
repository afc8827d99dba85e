"""A run in MLflow, by its own library with a store on the disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from PIL import Image

from deploy.configs import load_config
from deploy.stopping import RunStoppedError
from deploy.tracking.trackers import Trackers, check_trackers
from rc_grpo.config import RunConfig

TARGETS = [f"transformer_blocks.{number}.attn.to_q" for number in range(40)]
CONFIG = load_config(
    "pocket",
    ["output.trackers=[mlflow]", "output.project=edits", "name=tracked", f"editor.lora.targets={json.dumps(TARGETS)}"],
)


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The slim client knows servers and folders; a database needs the whole package.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())


def runs() -> list[Any]:
    client = mlflow.MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name("edits").experiment_id]))


def history(run: Any, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in mlflow.MlflowClient().get_metric_history(run.info.run_id, name)]


def artifact(run: Any, path: str) -> str:
    return Path(mlflow.MlflowClient().download_artifacts(run.info.run_id, path)).read_text()


def test_metrics_grid_evaluation_configuration_and_summary_are_there(tmp_path: Path) -> None:
    check_trackers(CONFIG.output)
    grid = tmp_path / "grid.png"
    Image.new("RGB", (8, 4), "red").save(grid)
    with Trackers(CONFIG, tmp_path) as trackers:
        trackers.metrics("evaluation", 0, {"heldout/reward": 0.25})
        trackers.metrics("update", 1, {"reward/task_mean": 0.5})
        trackers.metrics("update", 2, {"reward/task_mean": 0.75})
        trackers.grids({1: grid})
        trackers.summary(2, {"updates": 2, "heldout": {"gain": 0.1}, "final": "v2"})
    (run,) = runs()
    assert (run.info.run_name, run.info.status) == ("tracked", "FINISHED")
    assert history(run, "heldout/reward") == [(0, 0.25)]
    assert history(run, "reward/task_mean") == [(1, 0.5), (2, 0.75)]
    assert history(run, "summary/heldout/gain") == [(2, 0.1)]
    assert json.loads(artifact(run, "summary.json"))["final"] == "v2"
    pictures = [entry.path for entry in mlflow.MlflowClient().list_artifacts(run.info.run_id, "images")]
    assert [path for path in pictures if path.endswith(".png") and "candidates" in path]


def test_what_is_too_long_for_a_parameter_is_cut_and_whole_in_config_yaml(tmp_path: Path) -> None:
    with Trackers(CONFIG, tmp_path):
        pass
    (run,) = runs()
    assert run.data.params["rollout.group_size"] == str(CONFIG.rollout.group_size)
    assert len(run.data.params["editor.lora.targets"]) == 500
    assert yaml.safe_load(artifact(run, "config.yaml"))["editor"]["lora"]["targets"] == TARGETS


def train(config: RunConfig, folder: Path, updates: Sequence[int], error: Exception) -> None:
    with Trackers(config, folder) as trackers:
        for update in updates:
            trackers.metrics("update", update, {"a": update})
        raise error


def test_a_resumed_run_goes_on_in_the_same_tracker_run_and_sends_no_update_twice(tmp_path: Path) -> None:
    with pytest.raises(RunStoppedError):
        train(CONFIG, tmp_path, (1, 2, 3), RunStoppedError())
    assert [run.info.status for run in runs()] == ["KILLED"]
    resumed = CONFIG.model_copy(update={"rollout": CONFIG.rollout.model_copy(update={"workers": 7})})
    with pytest.raises(OSError):
        train(resumed, tmp_path, (2, 3, 4), OSError())
    (run,) = runs()
    assert history(run, "a") == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert run.info.status == "FAILED"
    assert yaml.safe_load(artifact(run, "config.yaml"))["rollout"]["workers"] == 7
