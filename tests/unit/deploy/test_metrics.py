import json
from pathlib import Path

import numpy as np
import pytest

from deploy.records.metrics import MetricsLog, batch_metrics
from learner.group import UpdateReport
from rc_grpo.evaluation.gains import HeldOut, PairedGain
from rc_grpo.messages import EditTask, GroupScores, PolicyVersion, RolloutReceipt, ScoredGroup


def version(number: int) -> PolicyVersion:
    return PolicyVersion(number, "d", 1, is_identity=False)


def scored(rewards: list[float], number: int) -> ScoredGroup:
    receipt = RolloutReceipt("t", version(number), "w", (0.1,) * len(rewards), 0.02, {"integrate": 1.0})
    scores = GroupScores("t", "j", np.array(rewards), np.full(len(rewards), np.nan), {"success": np.array(rewards)})
    return ScoredGroup(EditTask("t", "add", b"", "", b""), receipt, scores, None, None)


def test_a_failed_score_is_counted_and_enters_no_mean() -> None:
    batch = [scored([0.2, np.nan, 0.4], 3), scored([0.6, 0.6, 0.6], 2)]
    report = UpdateReport(version(3), np.zeros((2, 3)), (None, "tied_task_rewards"), {"x": 1.0})
    metrics = batch_metrics(batch, report)
    assert metrics["reward/task_mean"] == pytest.approx((0.2 + 0.4 + 1.8) / 5)
    assert metrics["reward/failed_scores"] == 1
    assert metrics["reward/task_within_group_std"] == pytest.approx(0.05)
    assert metrics["staleness/max"] == 1
    assert metrics["groups_skipped/share"] == 0.5
    assert "acd/mean" not in metrics
    assert metrics["diversity/mean"] == pytest.approx(0.02)
    assert metrics["x"] == 1.0


def test_metrics_are_json_with_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(1, {"a": 0.5, "b": float("nan")}, event="update")
    log.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"update": 1, "event": "update", "a": 0.5, "b": None}
    assert list((tmp_path / "tensorboard").glob("events.*"))


def held_out(rewards: list[float]) -> HeldOut:
    return HeldOut(version(0), np.array(rewards), np.zeros(len(rewards)), {})


def test_the_paired_gain_is_that_of_the_differences() -> None:
    gain = PairedGain.between(held_out([0.1, 0.5, 0.9, np.nan]), held_out([0.2, 0.7, 1.0, 0.3]))
    differences = np.array([0.1, 0.2, 0.1])
    assert gain.tasks == 3
    assert gain.gain == pytest.approx(differences.mean())
    assert gain.standard_error == pytest.approx(differences.std(ddof=1) / 3**0.5)
    assert gain.in_standard_errors == pytest.approx(gain.gain / gain.standard_error)


def test_two_evaluations_without_a_common_task_are_not_compared() -> None:
    with pytest.raises(ValueError, match="nothing can be compared"):
        PairedGain.between(held_out([np.nan, 0.1]), held_out([0.1, np.nan]))
