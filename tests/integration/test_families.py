"""The whole system on a small model of each family: two updates and an export; and a family that is seen to learn."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

from deploy.looking.replay import replay
from deploy.records.folder import RunFolder
from rc_grpo.data.log.logged import read_groups
from rc_grpo.images import encode_png
from rc_grpo.pocket.world import PocketWorld
from tests.families import KLEIN, KLEIN_KV, QWEN, QWEN_21, Row, source

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
UPDATES = 12
LEARNING = (
    "rollout.steps=4",
    "rollout.group_size=6",
    "objective.anchors=2",
    "learner.learning_rate=3e-3",
    "evaluation={tasks: 100, steps: 4}",
    f"loop.updates={UPDATES}",
    "name=learning",
)
# The one trains through one pass of its guidance by the whole chain, the other through both by single steps, and so on.
GUIDANCE = {KLEIN.name: 1.0, KLEIN_KV.name: 1.0, QWEN.name: 3.0, QWEN_21.name: 1.0}
HOW = {
    KLEIN.name: ("editor.dtype=float32", "rollout.acd={layers: 0.5}"),
    KLEIN_KV.name: ("editor.dtype=float32", "editor.prefix=shared", "rollout.acd={layers: 0.5}"),
    QWEN.name: (
        "editor.dtype=bfloat16",
        "objective.anchor_path=step",
        "objective.trained_steps=2",
        "rollout.exploration=global",
        "rollout.acd.enabled=false",
        "objective.acd_weight=0",
        "rollout.solver=heun",
    ),
    QWEN_21.name: ("editor.dtype=float32", "editor.prefix=shared", "rollout.acd={layers: 0.5, direction: to_text}"),
}


def trained(folder: Path, python: str, config: str, overrides: Sequence[str]) -> str:
    """Train in a folder; what was said."""
    options = [part for override in overrides for part in ("--set", override)]
    job = json.dumps({"runtime_env": {"py_executable": python}})
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "train", config, *options],
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", RAY_JOB_CONFIG_JSON_ENV_VAR: job},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def updates_of(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "update"]


@pytest.mark.parametrize(
    "row",
    [QWEN, *(pytest.param(row, marks=pytest.mark.slow) for row in (KLEIN, KLEIN_KV, QWEN_21))],
    ids=lambda row: row.name,
)
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
    said = trained(tmp_path, python, "pocket", (*SMALL, *HOW[row.name], *own))
    assert f"guidance {GUIDANCE[row.name]:g}, 4 in evaluations" in " ".join(said.split())
    run = tmp_path / "runs" / "small"
    updates = updates_of(run)
    assert [line["update"] for line in updates] == [1, 2]
    for line in updates:
        assert line["update/first_step/max_abs_log_ratio"] == 0.0
        assert ("acd/mean" in line) == (row is not QWEN)
    assert updates[1]["policy/canary_shift"] > 0
    summary = json.loads((run / "summary.json").read_text())
    assert summary["exported_digest"] == summary["final_version"]["digest"]
    names = safetensors.torch.load_file(run / "lora" / "pytorch_lora_weights.safetensors")
    assert len(names) == 2 * summary["final_version"]["modules"]


@pytest.mark.slow
@pytest.mark.parametrize("row", [KLEIN, QWEN, QWEN_21], ids=lambda row: row.name)
def test_a_family_is_trained_on_tasks_of_two_sources_and_replayed(row: Row, tmp_path: Path, python: str) -> None:
    assert row.make is not None
    row.make(tmp_path / row.name)
    lines = []
    for number, task in enumerate(PocketWorld("train", 4)):
        files = {"source": task.source, "mask": task.mask, "target": task.target, "other": encode_png(source(64, 96))}
        for name, data in files.items():
            (tmp_path / f"{name}{number}.png").write_bytes(data or b"")
        given = {name: f"{name}{number}.png" for name in ("source", "mask", "target")}
        told = {"task_id": f"t{number}", "instruction": task.instruction}
        lines.append(json.dumps(given | told | {"references": [f"other{number}.png"]}))
    (tmp_path / "tasks.jsonl").write_text("\n".join(lines))
    own = (
        "editor.sources=2",
        f"editor.model={tmp_path / row.name}",
        f"editor.guidance={GUIDANCE[row.name]}",
        f"editor.lora={{rank: 4, alpha: 8, targets: [{', '.join(row.targets)}]}}",
        f"editor.text_tokens={2 * row.text_tokens}",
        *(() if row.source_resolution is None else (f"editor.source_resolution={row.source_resolution}",)),
        *(f"data.{branch}={{format: jsonl, path: {tmp_path / 'tasks.jsonl'}}}" for branch in ("train", "heldout")),
        "output.experience=states",
        "output.policies=all",
    )
    said = trained(tmp_path, python, "pocket", (*SMALL, *HOW[row.name], *own))
    assert "up to 2 sources a task" in " ".join(said.split())
    run = tmp_path / "runs" / "small"
    updates = updates_of(run)
    assert [line["update/first_step/max_abs_log_ratio"] for line in updates] == [0.0, 0.0]
    assert updates[1]["policy/canary_shift"] > 0
    digests = json.loads((run / "data.json").read_text())["train"]["tasks"]
    assert {len(digest.split("-")) for digest in digests.values()} == {5}
    group = read_groups(RunFolder(run).experience()[2], need="states")[0]
    assert group.conditions is not None
    assert len(group.conditions.sources) == 2
    assert replay(run, f"2/{group.task_id}").identical


@pytest.mark.timeout(660)
def test_an_editor_of_another_family_learns_by_three_standard_errors_at_least(tmp_path: Path, python: str) -> None:
    trained(tmp_path, python, "pocket_klein", LEARNING)
    run = tmp_path / "runs" / "learning"
    assert [line["update/first_step/max_abs_log_ratio"] for line in updates_of(run)] == [0.0] * UPDATES
    before, after = (
        np.array(json.loads((run / "evaluations" / f"update-{update:05}.json").read_text())["reward"])
        for update in (0, UPDATES)
    )
    gains = after - before
    assert gains.mean() > 3 * gains.std(ddof=1) / np.sqrt(len(gains))
