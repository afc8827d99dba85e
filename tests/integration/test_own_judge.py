"""A judge in a distribution of its own: found by entry point, trained by, resumed with; named where it is missing."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from deploy.cli import app
from tests.integration.installed import install, rc_grpo, train_pocket

# In the gate, `test_own_family` trains by this judge.
pytestmark = pytest.mark.slow

DISTRIBUTION = Path(__file__).parents[1] / "colour_judge"
PRODUCT = Path(__file__).parents[2]
OVERRIDES = (
    "reward.judges={red: {kind: colour, colour: [220, 30, 30], resources: {num_cpus: 0.25}}, elsewhere: {kind: "
    "'colour_judge:ColourConfig', colour: [0, 0, 255], weight: 0, resources: {num_cpus: 0.25}}}",
    "rollout.group_size=4",
    "rollout.steps=3",
    "rollout.workers=1",
    "objective.anchors=2",
    "objective.min_std=0",
    "learner.ranks=1",
    "loop={updates: 2, groups_per_update: 2}",
    "evaluation.tasks=0",
    "output.checkpoint_every=1",
    "cluster.dashboard=false",
    "data.train.limit=4",
    "name=own-judge",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, python: str) -> dict[str, str]:
    return install([DISTRIBUTION], tmp_path_factory.mktemp("site"), python)


@pytest.fixture(scope="module")
def trained(site: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    train_pocket(site, folder, OVERRIDES)
    return folder / "runs" / "own-judge"


def test_a_judge_that_another_package_brings_is_learned_from(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines] == [1, 2]
    for line in lines:
        assert 0 < line["reward/red_mean"] < 1
        assert 0 < line["reward/elsewhere_mean"] < 1
    assert not json.loads((trained / "summary.json").read_text())["final_version"]["is_identity"]


def test_its_keys_are_in_the_run_s_configuration(trained: Path) -> None:
    judges = yaml.safe_load((trained / "config.yaml").read_text())["reward"]["judges"]
    assert (judges["red"]["kind"], judges["red"]["colour"], judges["red"]["half_at"]) == ("colour", [220, 30, 30], 64.0)
    assert judges["elsewhere"]["kind"] == "colour_judge:ColourConfig"


def test_a_run_without_its_package_says_so_and_with_it_goes_on(site: dict[str, str], trained: Path) -> None:
    more = ("train", "--resume", str(trained), "--set", "loop.updates=3")
    refused = CliRunner().invoke(app, more)
    assert refused.exit_code == 2
    assert "no judge is of kind 'colour'; built in: ground_truth, editscore" in refused.stderr
    resumed = rc_grpo(site, trained.parent, *more)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])["update"] == 3


def test_no_line_of_the_product_knows_it() -> None:
    packages = ("rc_grpo", "rollout_workers", "reward_service", "learner", "deploy")
    sources = [path for package in packages for path in (PRODUCT / package).rglob("*.py")]
    known = [path for path in sources if "colour_judge" in (text := path.read_text()) or "ColourConfig" in text]
    assert known == []
