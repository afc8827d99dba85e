"""A run survives its own parts: whatever dies, stops or is torn, it ends at the weights of the undisturbed run."""

from pathlib import Path

import pytest
import ray

from deploy.cluster import namespace
from deploy.records.checkpoints import Checkpoints
from deploy.run import Run
from deploy.stopping import RunStoppedError
from learner.errors import LearnerLostError
from tests.integration.conftest import FOUR, Finished, train_short
from tests.integration.disturbed import disturbed, go_on, kill, same_run, stop

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("stage", "ranks"),
    [
        pytest.param(0, 1, marks=pytest.mark.slow),
        pytest.param(0, 2, marks=pytest.mark.chaos),
        pytest.param(2, 1, marks=pytest.mark.chaos),
        pytest.param(2, 2, marks=pytest.mark.slow),
    ],
)
def test_some_updates_then_a_resume_then_the_rest_are_the_run_bit_for_bit(
    stage: int, ranks: int, undisturbed: Finished, tmp_path: Path
) -> None:
    shape = (f"learner.zero_stage={stage}", f"learner.ranks={ranks}")
    with pytest.raises(RunStoppedError, match="stopped after update 1, as asked; go on with: rc-grpo train --resume"):
        disturbed(tmp_path, f"halved-{stage}-{ranks}", {1: stop}, *shape, "output.experience=scores")
    halved = go_on(tmp_path / f"halved-{stage}-{ranks}")
    whole = undisturbed if ranks == 1 else train_short(tmp_path, f"whole-{stage}-{ranks}", *FOUR, *shape)
    same_run(halved, whole)


def test_a_killed_rank_costs_time_and_nothing_else(undisturbed: Finished, tmp_path: Path) -> None:
    same_run(disturbed(tmp_path, "rank-killed", {3: kill("learner-0")}), undisturbed)
    aside = tmp_path / "rank-killed" / "set-aside" / "000-after-update-00002"
    assert "metrics.jsonl" in {path.name for path in aside.iterdir()}


@pytest.mark.chaos
def test_a_killed_rank_of_two_is_no_hang(tmp_path: Path) -> None:
    shape = ("learner.ranks=2", "learner.zero_stage=3", "objective.old_path=recompute")
    whole = train_short(tmp_path, "two", *FOUR, *shape)
    same_run(disturbed(tmp_path, "one-of-two-killed", {1: kill("learner-1")}, *shape), whole)


def test_a_learner_that_dies_again_and_again_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(LearnerLostError, match="learner"):
        disturbed(tmp_path, "doomed", {1: kill("learner-0")}, "learner.restarts=0")


@pytest.mark.chaos
def test_a_torn_checkpoint_is_skipped_and_the_one_before_it_gives_the_same_run(
    undisturbed: Finished, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RunStoppedError):
        disturbed(tmp_path, "torn", {3: stop})
    newest = tmp_path / "torn" / "checkpoints" / Checkpoints(tmp_path / "torn" / "checkpoints", 3).names[-1]
    assert newest.name == "update-00003"
    victim = max((path for path in newest.rglob("*.pt")), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    same_run(go_on(tmp_path / "torn"), undisturbed)
    assert "skipping a torn checkpoint" in caplog.text


def test_growing_and_shrinking_while_training_changes_nothing(undisturbed: Finished, tmp_path: Path) -> None:
    def sizes(run: Run) -> None:
        control = ray.get_actor("control", namespace(run.config.name))
        orders.append(control.scale.remote("rollout", 3 if run.done == 1 else 2))
        orders.append(control.scale.remote("reward", 2 if run.done == 1 else 1))

    orders: list[object] = []
    scaled = disturbed(tmp_path, "scaled", {1: sizes, 2: sizes})
    same_run(scaled, undisturbed)
    assert ray.get(orders, timeout=10) == [
        "rollout: 1 -> 3 workers",
        "reward-ground_truth: 1 -> 2 workers",
        "rollout: 3 -> 2 workers",
        "reward-ground_truth: 2 -> 1 workers",
    ]
    assert scaled.updates[-1]["pool/rollout_wanted"] == 2


@pytest.mark.slow
def test_a_pool_that_is_waited_for_grows_by_itself_and_changes_nothing(undisturbed: Finished, tmp_path: Path) -> None:
    grown = train_short(tmp_path, "grown", *FOUR, "rollout.autoscale={max_workers: 2, grow_above: 0.05}")
    same_run(grown, undisturbed)
    assert [update["pool/rollout_wanted"] for update in grown.updates] == [1, 2, 2, 2]
