"""Explore, then exact, by the whole distributed system on the real pocket editor."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sequential import run as run_sequentially
from deploy.looking.replay import replay
from rc_grpo.data.log.logged import read_groups
from rc_grpo.editor.export import read_lora
from rc_grpo.messages import RolloutSeeds
from tests.integration.conftest import short_config, train_short

EXPLORING = ("rollout.explore=9", "reward.prune=0", "output.experience=images", "output.policies=all")


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_two_updates_that_explore_learn_what_the_sequential_program_learns_and_replay_bit_for_bit(
    tmp_path: Path,
) -> None:
    run = train_short(tmp_path, "exploring", *EXPLORING)
    config = short_config(tmp_path, "exploring", *EXPLORING)
    for update, metrics in enumerate(run.updates, start=1):
        groups = read_groups(run.folder / "experience" / f"update-{update:05d}.parquet")
        assert len(groups) == config.loop.groups_per_update
        assert metrics["explore/candidates"] == 9 * len(groups)
        assert metrics["rollout_seconds/explore"] > 0
        for group in groups:
            pool = group.scores.explored
            assert pool is not None
            assert pool.policy == group.candidates.policy
            assert pool.seeds == RolloutSeeds.for_group(config.seed, update - 1, group.task_id, 9)
            rewards = pool.rewards["ground_truth"]
            kept, left = rewards[list(pool.chosen[1:])], np.delete(rewards, pool.chosen)
            assert np.nanmin(left) >= np.sort(kept)[(len(kept) // 2) - 1]
            assert np.nanmax(left) <= np.sort(kept)[len(kept) // 2]
    expected = run_sequentially(config, log=lambda record: None, every=100, budget=float("inf"))
    weights = read_lora(config.editor.lora, run.folder / "lora")
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    report = replay(run.folder, f"2/{groups[-1].task_id}")
    assert "the pool's images" in {comparison.what for comparison in report.comparisons}
    assert report.identical, report.comparisons
