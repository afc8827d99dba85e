"""A family of editors and a judge in distributions of their own: found by entry points, trained by, exported."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.cli import app
from tests.integration.installed import install, train_pocket

DISTRIBUTIONS = [Path(__file__).parents[1] / name for name in ("sketch_family", "colour_judge")]
PRODUCT = Path(__file__).parents[2]
OVERRIDES = (
    "editor.model=sketch-tiny",
    "editor.guidance=3.0",
    "editor.resolution=64",
    "editor.lora={rank: 4, alpha: 8, targets: [attn.to_q, attn.to_v, attn.to_out]}",
    "reward.judges={red: {kind: colour, colour: [220, 30, 30], resources: {num_cpus: 0.25}}}",
    "rollout.acd.layers=[0, 1]",
    "rollout.group_size=4",
    "rollout.steps=3",
    "rollout.solver=heun",
    "rollout.workers=1",
    "objective.anchors=2",
    "objective.min_std=0",
    "learner.ranks=1",
    "loop={updates: 2, groups_per_update: 2}",
    "evaluation.tasks=0",
    "cluster.dashboard=false",
    "data.train.limit=4",
    "name=own-family",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, python: str) -> dict[str, str]:
    return install(DISTRIBUTIONS, tmp_path_factory.mktemp("site"), python)


@pytest.fixture(scope="module")
def trained(site: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    train_pocket(site, folder, OVERRIDES)
    return folder / "runs" / "own-family"


def test_a_family_that_another_package_brings_is_trained_by_a_judge_of_a_third_and_exported(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2]
    summary = json.loads((trained / "summary.json").read_text())
    assert not summary["final_version"]["is_identity"]
    assert summary["final_version"]["modules"] == 6
    assert summary["exported_digest"] == summary["final_version"]["digest"]
    for line in lines:
        assert line["update/first_step/max_abs_log_ratio"] == 0.0
        assert line["acd/mean"] > 0
        assert 0 < line["reward/red_mean"] < 1
    assert lines[1]["policy/canary_shift"] > 0


def test_its_lora_names_its_own_projections(trained: Path) -> None:
    import safetensors.torch

    names = safetensors.torch.load_file(trained / "lora" / "pytorch_lora_weights.safetensors")
    assert {name.split(".lora_")[0] for name in names} == {
        f"transformer.blocks.{index}.attn.{name}" for index in range(2) for name in ("to_q", "to_v", "to_out")
    }


def test_no_line_of_the_product_knows_it() -> None:
    packages = ("rc_grpo", "rollout_workers", "reward_service", "learner", "deploy")
    known = [path for package in packages for path in (PRODUCT / package).rglob("*.py") if "sketch" in path.read_text()]
    assert known == []


def test_without_the_package_the_error_names_what_is_installed() -> None:
    options = ["--set", "editor.family=sketch", "--set", "editor.model=sketch-tiny"]
    refused = CliRunner().invoke(app, ["train", "pocket", *options])
    assert refused.exit_code == 2
    assert "editor.family is 'sketch'; installed: flux-kontext (FluxKontextPipeline)" in refused.stderr
