"""The long runs: their plan, and what is made of them, on runs whose answer is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ablation import long_summary
from benchmarks.ablation.long import PLAIN, PLAN, long_runs, plan
from benchmarks.ablation.seeds import corrected, difference
from benchmarks.ablation.statistics import Trained, read
from benchmarks.results import FOLDER
from deploy.configs import load_config


def trained(world: str, arm: str, seed: int, gain: float, seconds: float = 90.0) -> Trained:
    lines = [
        {"reward": [0.5], "candidates": 32, "trained_seconds": seconds * n / 20, "velocity_norm_edit": 1.2,
         "velocity_norm_background": 1.1}
        for n in range(1, 21)
    ]  # fmt: skip
    names = ("reward", "success", "background/psnr")
    first = {name: np.array([0.4, 0.6]) for name in names}
    return Trained(world, arm, seed, lines, {0: first, 20: {name: first[name] + gain for name in names}}, "H", 0.1)


def test_every_long_run_is_a_valid_config_and_a_world_of_the_plan_has_arms_of_the_plan() -> None:
    runs = long_runs(Path("damaged"), (), ())
    assert len({run.file(Path()) for run in runs}) == len(runs)
    for run in runs[: len(runs) // plan()["seeds"]]:
        config = load_config("pocket", run.overrides)
        assert config.loop.updates == run.updates
    assert {run.world for run in long_runs(Path(), ("noisy",), ())} == {"noisy"}


def test_all_arms_of_a_world_get_the_same_time() -> None:
    planned = plan()
    for world in planned["worlds"]:
        spent = [run.updates * planned["seconds"][run.arm] for run in long_runs(Path(), (world,), ())]
        assert max(spent) - min(spent) <= max(planned["seconds"].values())
    assert min(run.updates for run in long_runs(Path(), (PLAIN,), ())) >= 300


def test_two_arms_are_compared_seed_by_seed() -> None:
    one = [trained(PLAIN, "one", seed, 0.1 + 0.02 * seed) for seed in range(5)]
    other = [trained(PLAIN, "other", seed, 0.05 + 0.02 * seed + 0.01 * (seed % 2)) for seed in range(5)]
    found = difference({"one": one, "other": other}, "one", "other", PLAIN)
    assert found.estimate.mean == pytest.approx(0.046)
    # Differences 5, 4, 5, 4, 5 hundredths: t = 4.6 / (sqrt(0.3) / sqrt(5)) = 18.78 at four degrees of freedom.
    assert found.p_value == pytest.approx(4.73e-5, rel=0.01)
    with pytest.raises(ValueError, match="cannot be paired"):
        difference({"one": one[:3], "other": other}, "one", "other", PLAIN)


def test_equal_arms_are_even() -> None:
    arms = {name: [trained(PLAIN, name, seed, 0.1) for seed in range(3)] for name in ("one", "other")}
    found = difference(arms, "one", "other", PLAIN)
    assert (found.p_value, found.verdict) == (1.0, "even")


def test_chances_are_corrected_by_holm_for_the_number_of_comparisons() -> None:
    any_one = difference(
        {name: [trained(PLAIN, name, seed, 0.1) for seed in range(2)] for name in "ab"}, "a", "b", PLAIN
    )
    found = corrected([replace(any_one, p_value=value) for value in (0.04, 0.01, 0.03, 0.005)])
    # Holm's own example: 0.005 x 4, 0.01 x 3, then 0.03 x 2, which the largest may not fall below.
    assert [one.corrected for one in found] == pytest.approx([0.06, 0.03, 0.06, 0.02])


def test_the_figures_say_the_best_arm_gains_and_minutes() -> None:
    gains = {arm: 0.02 * place for place, arm in enumerate(plan()["worlds"][PLAIN])}
    runs = [
        trained(world, arm, seed, gains.get(arm, 0.0) + 0.001 * seed + (0.0005 * seed * (arm == long_summary.FULL)))
        for world, arms in plan()["worlds"].items()
        for arm in arms
        for seed in range(5)
    ]
    worlds = long_summary.by_world(runs)
    compared = long_summary.comparisons(worlds)
    assert len(compared) == 8 + 4 + 3 + 4 + 2
    figures = long_summary.figures(worlds, compared)
    best = max(gains, key=lambda arm: gains[arm])
    assert figures["best_gain_share"].value == pytest.approx((gains[best] + 0.002) / 0.5)
    assert figures["best_gain_share"].note.startswith(best)  # type: ignore[union-attr]
    assert figures["gpu_minutes_rdp_acd"].value == pytest.approx(90 * 0.1 / 60)
    sde = gains["RDP + ACD"] - gains["Flow-GRPO"] + 0.001
    assert figures["rdp_acd_over_sde"].value == pytest.approx(sde)
    assert figures["damages_rdp_over_global"].value == pytest.approx(gains["RDP"] - gains["global"])
    assert figures["comparisons"].value == len(compared)
    page = long_summary.tables(worlds, compared)
    assert f"Holm of {len(compared)}" in page
    assert json.loads(json.dumps(long_summary.detail(worlds, compared)))["trained_on"] == ["H"]


def test_what_is_committed_is_what_its_runs_say() -> None:
    runs, figures = read(PLAN.parent / "long_runs"), json.loads((FOLDER / "ablation_gpu.json").read_text())["figures"]
    planned = {(one.world, one.arm, one.seed): one.updates for one in long_runs(Path(), (), ())}
    assert {(run.part, run.arm, run.seed): len(run.updates) for run in runs} == planned
    # By hand: the share of the distance to 1 that the best arm gained, over its seeds.
    gained = [
        (last - first) / (1 - first)
        for run in runs
        if (run.part, run.arm) == (PLAIN, "FDFO, RDP")
        for first, last in [(run.first("reward").mean(), run.last("reward").mean())]
    ]
    assert figures["best_gain_share"]["value"] == pytest.approx(np.mean(gained))
    assert figures["best_gain_share"]["note"].startswith("FDFO, RDP")
    plain = {
        (run.arm, run.seed): float(run.last("reward").mean() - run.first("reward").mean())
        for run in runs
        if run.part == PLAIN
    }
    over = np.mean([plain["RDP + ACD", seed] - plain["Flow-GRPO", seed] for seed in range(5)])
    assert figures["rdp_acd_over_sde"]["value"] == pytest.approx(over)
