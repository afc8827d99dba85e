"""What only MLflow's tracker does, by its own library with a store on the disk."""

import json
from pathlib import Path

import pytest
import yaml

from deploy.configs import load_config
from deploy.tracking.trackers import Trackers
from tests.unit.deploy.tracking.reading import MlflowFiles

TARGETS = [f"transformer_blocks.{number}.attn.to_q" for number in range(40)]


def test_what_is_too_long_for_a_parameter_is_cut_and_whole_in_config_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(
        "pocket", ["output.trackers=[mlflow]", "output.project=edits", f"editor.lora.targets={json.dumps(TARGETS)}"]
    )
    files = MlflowFiles(tmp_path, "edits", monkeypatch)
    with Trackers(config, tmp_path):
        pass
    (run,) = files.found()
    assert run.data.params["rollout.group_size"] == str(config.rollout.group_size)
    assert len(run.data.params["editor.lora.targets"]) == 500
    assert yaml.safe_load(files.artifact(run, "config.yaml"))["editor"]["lora"]["targets"] == TARGETS
