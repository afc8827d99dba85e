"""The whole distributed system on the real pocket editor: every mode runs, and the same seed is the same run."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks.sequential import run as run_sequentially
from deploy.stopping import RunStoppedError
from rc_grpo.config import load
from rc_grpo.data.log.experience import read_experience
from rc_grpo.data.log.policies import PolicyStore
from rc_grpo.editor import lora
from rc_grpo.editor.export import read_lora
from tests.integration.conftest import Finished, short_config, train_short
from tests.integration.disturbed import disturbed, go_on, same_run, stop
from tests.unit.deploy.tracking.wandb_files import rows, starts

pytestmark = pytest.mark.usefixtures("cluster")
THREE_GROUPS = "loop.groups_per_update=3"
TWO_RANKS = (THREE_GROUPS, "learner.ranks=2", "learner.zero_stage=2")


@pytest.fixture(scope="module")
def synchronous(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Finished:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "offline")
        return train_short(
            tmp_path_factory.mktemp("runs"),
            "one-worker",
            THREE_GROUPS,
            "evaluation.tasks=4",
            "output.experience=images",
            "output.grid_every=1",
            "output.checkpoint_every=1",
            "output.trackers=[wandb]",
        )


def test_the_ratio_is_exactly_one_before_the_first_step_and_is_logged(synchronous: Finished) -> None:
    for update in synchronous.updates:
        assert update["update/first_step/max_abs_log_ratio"] == 0.0
        assert update["update/first_step/max_abs_log_ratio_edit"] == 0.0
        assert update["update/first_step/max_abs_log_ratio_background"] == 0.0
        assert 0 <= update["update/first_step/recomputed_max_deviation"] < 1e-4


def test_training_changes_the_policy_and_synchronous_groups_are_never_stale(synchronous: Finished) -> None:
    versions = [update["version"] for update in synchronous.updates]
    assert len(set(versions)) == len(versions) == 2
    assert all(update["staleness/max"] == 0.0 for update in synchronous.updates)
    assert not synchronous.summary["final_version"]["is_identity"]


@pytest.mark.slow
def test_three_workers_give_the_same_weights_as_one(synchronous: Finished, tmp_path: Path) -> None:
    assert train_short(tmp_path, "three-workers", THREE_GROUPS, "rollout.workers=3").digest == synchronous.digest


def test_synchronous_training_is_the_sequential_program(synchronous: Finished, tmp_path: Path) -> None:
    config = short_config(tmp_path, "sequential", THREE_GROUPS)
    expected = run_sequentially(config, log=lambda record: None, every=100, budget=float("inf"))
    weights = read_lora(config.editor.lora, synchronous.folder / "lora")
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_a_run_leaves_everything_it_promises(synchronous: Finished) -> None:
    folder = synchronous.folder
    for path in ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", "lora"):
        assert (folder / path).exists(), path
    assert load(folder / "config.yaml").name == "one-worker"
    assert list((folder / "tensorboard").glob("events.*"))
    assert len(list((folder / "grids").glob("*.png"))) == 2
    checkpoints = sorted(path.parent.name for path in (folder / "checkpoints").glob("update-*/manifest.json"))
    assert checkpoints == ["update-00000", "update-00001", "update-00002"]
    assert len(list((folder / "policies").glob("*.safetensors"))) == 3
    assert synchronous.summary["heldout"]["tasks"] == 4
    table = read_experience(folder / "experience" / "update-00001.parquet")
    assert table.num_rows == 3 * 4
    assert np.isfinite(table.column("advantage").to_numpy()).all()
    expected = {
        "reward/task_mean",
        "reward/task_within_group_std",
        "background_drift/mean",
        "acd/mean",
        "staleness/max",
    }
    assert expected <= synchronous.updates[0].keys()


def test_a_tracker_gets_what_the_folder_gets(synchronous: Finished) -> None:
    (start,) = starts(synchronous.folder / "trackers")
    seen = [row for row in rows(start) if "reward/task_mean" in row]
    assert [row["update"] for row in seen] == [1, 2]
    assert [row["reward/task_mean"] for row in seen] == [update["reward/task_mean"] for update in synchronous.updates]
    assert len([row for row in rows(start) if "candidates.path" in row]) == 2
    assert [record.exit.exit_code for record in start if record.HasField("exit")] == [0]


def test_the_exported_lora_is_the_last_version(synchronous: Finished) -> None:
    config = load(synchronous.folder / "config.yaml")
    exported = read_lora(config.editor.lora, synchronous.folder / "lora")
    assert lora.digest(exported) == synchronous.digest
    assert safetensors.torch.load_file(synchronous.folder / "lora" / "pytorch_lora_weights.safetensors")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Finished:
    """A run of two ranks that was stopped between its two updates."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.raises(RunStoppedError, match="stopped after update 1, as asked; go on with: rc-grpo train --resume"):
        disturbed(root, "two-ranks", {1: stop}, *TWO_RANKS, shape=())
    return go_on(root / "two-ranks")


def test_two_ranks_stopped_and_resumed_with_their_sharded_optimiser_learn_what_one_learns(
    synchronous: Finished, two_ranks: Finished
) -> None:
    """Three groups on two ranks are dealt by their chains, and the sum is the same to float tolerance."""
    two, settings = two_ranks, load(two_ranks.folder / "config.yaml").editor.lora
    one_weights, two_weights = (read_lora(settings, run.folder / "lora") for run in (synchronous, two))
    # B began as zero: it is what was learned. Adam makes a step of a gradient that is rounding alone, here and there.
    learned, apart = (
        torch.cat([tensor.flatten() for name, tensor in tensors.items() if ".lora_B." in name])
        for tensors in (one_weights, {name: two_weights[name] - one for name, one in one_weights.items()})
    )
    assert apart.norm() < 0.005 * learned.norm()
    for mine, theirs in zip(two.updates, synchronous.updates, strict=True):
        assert mine["update/grad_norm"] == pytest.approx(theirs["update/grad_norm"], rel=1e-3)


@pytest.mark.slow  # Its witnesses in the gate: to float tolerance above, and to the bit on one rank.
def test_an_update_then_a_resume_of_two_ranks_with_their_sharded_optimiser_then_the_rest_are_the_run(
    two_ranks: Finished, tmp_path: Path
) -> None:
    same_run(two_ranks, train_short(tmp_path, "whole", *TWO_RANKS))


@pytest.mark.slow  # Its witness in the gate is a family's run: tests/integration/test_families.py.
def test_single_steps_global_exploration_no_attention_reward_over_a_bfloat16_base(tmp_path: Path) -> None:
    run = train_short(
        tmp_path,
        "step-global",
        "loop.updates=1",
        "editor.dtype=bfloat16",
        "objective.anchor_path=step",
        "objective.trained_steps=2",
        "rollout.exploration=global",
        "rollout.acd.enabled=false",
        "objective.acd_weight=0",
        "rollout.solver=heun",
    )
    assert len(run.updates) == 1
    assert all("acd/mean" not in update for update in run.updates)
    assert all(update["update/first_step/max_abs_log_ratio"] == 0.0 for update in run.updates)


def test_a_learner_in_float8_compares_itself_with_itself(tmp_path: Path) -> None:
    run = train_short(tmp_path, "float8", "learner.fp8=true", "objective.old_path=recompute")
    for update in run.updates:
        assert update["update/first_step/max_abs_log_ratio"] == 0.0
        assert update["update/grad_norm"] > 0
    assert not run.summary["final_version"]["is_identity"]


def test_an_earlier_lora_is_trained_on_in_several_steps_with_moving_average_and_zero_3_on_two_ranks(
    synchronous: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(synchronous.folder)
    run = train_short(
        tmp_path,
        "zero-3",
        "learner.start_from=lora",
        "learner.ranks=2",
        "learner.zero_stage=3",
        "objective.old_path=recompute",
        "loop.max_staleness=1",
        "learner.steps_per_rollout=2",
        "learner.ema_decay=0.5",
        "objective.beta=0.01",
        "objective.clip=1e-3",
    )
    (begun_with,) = [policy for policy in PolicyStore(run.folder / "policies").kept() if policy.number == 0]
    assert synchronous.digest.startswith(begun_with.digest)
    assert run.updates[0]["update/first_step/max_abs_log_ratio"] == 0.0
    assert run.updates[0]["update/later_steps/max_abs_log_ratio"] > 0.0
    assert run.summary["exported_digest"] != run.digest  # the average is exported, the last version rolls out
