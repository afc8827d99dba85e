"""The ablation's arithmetic, on runs whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation.exploration import spread
from benchmarks.ablation.points import PARTS, PLAN, points
from benchmarks.ablation.statistics import Estimate, compare, paired, read
from benchmarks.ablation.tables import against, as_json, by_arm, rows
from benchmarks.results import FOLDER
from deploy.configs import load_config


def leave_run(folder: Path, arm: str, seed: int, gain: float, spread: float) -> None:
    heldout = {"reward": [0.4, 0.6]} | {
        name: [1.0, 1.0] for name in ("success", "over_editing", "background/psnr", "background/ssim", "drift")
    }
    later = heldout | {"reward": [0.4 + gain, 0.6 + gain]}
    lines = [
        {"part": "methods", "arm": arm, "seed": seed, "overrides": []},
        {"update": 0, "heldout": heldout},
        *({"update": n, "std": [spread * n, spread * (n + 1)], "reward": [0.5, 0.5]} for n in (1, 2, 3)),
        {"update": 3, "heldout": later},
    ]
    name = f"{arm.replace(' ', '-')}-{seed}.jsonl"
    (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_every_arm_is_a_valid_config_under_the_same_budget() -> None:
    configs = [load_config("pocket", point.overrides) for point in points(seeds=1)]
    assert len(configs) > len(PARTS)
    assert len({(config.loop, config.evaluation, config.rollout.group_size) for config in configs}) == 1
    assert len({json.dumps([*point.overrides]) for point in points()}) == len(points())


def test_gains_are_paired_by_task_and_averaged_over_seeds(tmp_path: Path) -> None:
    for seed, gain in enumerate((0.01, 0.02, 0.03)):
        leave_run(tmp_path, "GRPO + RDP", seed, gain, 0.1)
    table = rows(by_arm(read(tmp_path), "methods"))
    assert table["base"]["reward"].mean == pytest.approx(0.5)
    gained = table["GRPO + RDP"]["gain of reward"]
    assert gained.mean == pytest.approx(0.02)
    assert gained.half_width == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert not gained.excludes_loss


def test_arms_are_compared_group_by_group(tmp_path: Path) -> None:
    for seed in range(3):
        leave_run(tmp_path, "GRPO, global", seed, 0.0, 0.2)
        leave_run(tmp_path, "GRPO + RDP", seed, 0.0, 0.1)
    arms = by_arm(read(tmp_path), "methods")
    compared = compare(arms["GRPO + RDP"], arms["GRPO, global"], "std")
    assert compared.ratio == pytest.approx(0.5)
    assert compared.pairs == 18
    assert compared.p_value < 1e-3
    with pytest.raises(ValueError, match="different seeds"):
        compare(arms["GRPO + RDP"][:2], arms["GRPO, global"], "std")


def test_an_arm_is_held_against_the_reference_seed_by_seed(tmp_path: Path) -> None:
    for seed, base in enumerate((0.01, 0.05, 0.09)):
        leave_run(tmp_path, "RDP + ACD", seed, base, 0.1)
        leave_run(tmp_path, "GRPO + RDP", seed, base - 0.02, 0.1)
    arms = by_arm(read(tmp_path), "methods")
    difference = against(arms["RDP + ACD"], arms)["GRPO + RDP"]
    assert difference.mean == pytest.approx(-0.02)
    assert difference.half_width == pytest.approx(0, abs=1e-9)


def test_spread_sees_the_background_alone() -> None:
    images = np.full((3, 4, 4, 3), 100, dtype=np.uint8)
    images[0, :2] = 255
    outside = np.zeros((4, 4), dtype=np.float32)
    outside[2:] = 1
    assert spread(images, outside) == 0
    assert spread(images, 1 - outside) == pytest.approx(np.std([1, 100 / 255, 100 / 255]))


def test_what_is_committed_is_what_its_runs_say() -> None:
    folder, result = PLAN.parent / "runs", json.loads((FOLDER / "ablation.json").read_text())
    runs = read(folder)
    assert len(runs) == len(points())
    methods = by_arm(runs, "methods")
    assert json.loads(json.dumps(as_json(rows(methods)))) == result["detail"]["Methods"]
    curve = json.loads((folder / "exploration.json").read_text())["alpha_base"]
    packaged = curve[f"{load_config('pocket').rollout.alpha_base:g}"]
    for name in ("std", "drift", "spread"):
        ratio = paired(*(np.array(own[name]) for own in (packaged, curve["global"]))).ratio
        assert ratio == pytest.approx(result["figures"][f"rdp_{name}_over_global"]["value"])


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(Estimate.of([0.3]).half_width)
    assert not Estimate.of([0.3]).excludes_loss


def test_a_folder_without_runs_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.ablation train"):
        read(tmp_path)
