"""The ablation's arithmetic, on runs whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation.points import PARTS, points
from benchmarks.ablation.statistics import Estimate, compare, read
from benchmarks.ablation.tables import by_arm, rows
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


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(Estimate.of([0.3]).half_width)
    assert not Estimate.of([0.3]).excludes_loss


def test_a_folder_without_runs_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"benchmarks\.ablation train"):
        read(tmp_path)
