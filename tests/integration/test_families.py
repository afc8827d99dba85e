"""The whole system on a small model of each family: two updates, evaluations at another guidance, an export."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from tests.families import KLEIN, QWEN, Row

SMALL = (
    "editor.resolution=64",
    "rollout.group_size=4",
    "rollout.steps=3",
    "rollout.workers=1",
    "objective.anchors=2",
    "objective.min_std=0",
    "learner.ranks=1",
    "loop={updates: 2, groups_per_update: 2}",
    "evaluation={tasks: 2, steps: 2, guidance: 4}",
    "cluster.dashboard=false",
    "data.train.limit=4",
    "name=small",
)
# The one trains through one pass of its guidance by the whole chain, the other through both by single steps, and so on.
GUIDANCE = {KLEIN.name: 1.0, QWEN.name: 3.0}
HOW = {
    KLEIN.name: ("editor.dtype=float32", "rollout.acd={layers: 0.5}"),
    QWEN.name: (
        "editor.dtype=bfloat16",
        "objective.anchor_path=step",
        "objective.trained_steps=2",
        "rollout.exploration=global",
        "rollout.acd.enabled=false",
        "objective.acd_weight=0",
        "rollout.solver=heun",
    ),
}


@pytest.mark.parametrize("row", [KLEIN, QWEN], ids=lambda row: row.name)
def test_a_family_is_trained_evaluated_and_exported(row: Row, tmp_path: Path, python: str) -> None:
    assert row.make is not None
    row.make(tmp_path / row.name)
    own = (
        f"editor.model={tmp_path / row.name}",
        f"editor.guidance={GUIDANCE[row.name]}",
        f"editor.lora={{rank: 4, alpha: 8, targets: [{', '.join(row.targets)}]}}",
        f"editor.text_tokens={2 * row.text_tokens}",
        *(() if row.source_resolution is None else (f"editor.source_resolution={row.source_resolution}",)),
    )
    options = [part for override in (*SMALL, *HOW[row.name], *own) for part in ("--set", override)]
    job = json.dumps({"runtime_env": {"py_executable": python}})
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "train", "pocket", *options],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", RAY_JOB_CONFIG_JSON_ENV_VAR: job},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"guidance {GUIDANCE[row.name]:g}, 4 in evaluations" in " ".join(done.stdout.split())
    run = tmp_path / "runs" / "small"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    updates = [line for line in lines if line["event"] == "update"]
    assert [line["update"] for line in updates] == [1, 2]
    for line in updates:
        assert line["update/first_step/max_abs_log_ratio"] == 0.0
        assert ("acd/mean" in line) == (row is KLEIN)
    assert updates[1]["policy/canary_shift"] > 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["exported_digest"] == summary["final_version"]["digest"]
    names = safetensors.torch.load_file(run / "lora" / "pytorch_lora_weights.safetensors")
    assert len(names) == 2 * summary["final_version"]["modules"]
