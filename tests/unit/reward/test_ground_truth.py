import asyncio
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rc_grpo.images import decode_rgb, encode_png
from rc_grpo.messages import CandidateGroup, EditTask, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import Verdict
from reward_service.scoring import score_group

JUDGE = GroundTruthJudge()
TASK = PocketWorld("heldout", 30)[3]
SOURCE = decode_rgb(TASK.source).astype(np.float32)
TARGET = decode_rgb(TASK.target or b"").astype(np.float32)
BOX = (slice(96, 128), slice(96, 128))


def verdict(image: np.ndarray, task: EditTask = TASK) -> Verdict:
    return JUDGE.score(task, np.clip(image, 0, 255).round().astype(np.uint8)[None])[0]


def test_the_true_target_gets_full_marks_on_every_question() -> None:
    best = verdict(TARGET)
    assert best.reward == pytest.approx(1.0, abs=1e-6)
    assert all(value == pytest.approx(25.0, abs=1e-3) for value in best.subscores.values())


def test_doing_nothing_is_no_success_however_clean_it_is() -> None:
    nothing = verdict(SOURCE)
    assert nothing.subscores["success"] == 0.0
    assert nothing.reward == 0.0
    assert nothing.subscores["over_editing"] == pytest.approx(25.0)


@settings(max_examples=30)
@given(st.floats(0.05, 0.9), st.floats(0.02, 0.09))
def test_a_stronger_edit_succeeds_more(opacity: float, step: float) -> None:
    weak, strong = (verdict(SOURCE + o * (TARGET - SOURCE)) for o in (opacity, opacity + step))
    assert strong.subscores["success"] > weak.subscores["success"]


def test_more_drift_outside_the_mask_costs_more() -> None:
    outside = np.abs(TARGET - SOURCE).max(-1, keepdims=True) == 0
    marks = [verdict(TARGET + shift * outside).subscores["over_editing"] for shift in (0, 5, 15, 40)]
    assert marks == sorted(marks, reverse=True)
    assert marks[0] - marks[-1] > 10


def test_noise_is_an_artifact_and_blur_in_the_region_unnatural() -> None:
    rng = np.random.default_rng(0)
    assert verdict(TARGET + rng.normal(0, 30, TARGET.shape)).subscores["artifacts"] < 12
    inside = np.abs(TARGET - SOURCE).max(-1, keepdims=True) > 0
    flat = np.where(inside, TARGET[inside[..., 0]].mean(0), TARGET)
    assert verdict(flat).subscores["naturalness"] < 0.8 * verdict(TARGET).subscores["naturalness"]


def test_subscores_aggregate_as_editscore_does() -> None:
    marks = {"success": 24.0, "over_editing": 22.0, "naturalness": 23.0, "artifacts": 25.0}
    assert 10 * Verdict.from_subscores(marks).reward == pytest.approx(8.997777503361593, rel=1e-15)


@pytest.mark.parametrize("bad", [math.nan, -1.0, 25.5, math.inf])
def test_a_subscore_outside_its_scale_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="sub-score artifacts"):
        Verdict.from_subscores({"success": 1.0, "over_editing": 1.0, "naturalness": 1.0, "artifacts": bad})


def group_of(count: int) -> CandidateGroup:
    return CandidateGroup(
        TASK.task_id,
        RolloutSeeds(1, tuple(range(2, count + 1))),
        PolicyVersion(0, "d", 1, is_identity=True),
        np.array([1.0, 0.0]),
        np.ones(4, dtype=bool),
        np.stack([TARGET.astype(np.uint8)] * count),
        np.zeros(count, dtype=np.float32),
    )


def test_a_judge_that_raises_leaves_nan_and_its_reason_never_a_reward() -> None:
    class Broken:
        name = "broken"

        def score(self, task: EditTask, images: np.ndarray) -> list[Verdict]:
            raise ConnectionError("server gone")

    scores = asyncio.run(score_group(Broken(), TASK, group_of(3)))
    assert np.isnan(scores.task_reward).all()
    assert scores.failed == 3
    assert scores.reasons == ("ConnectionError: server gone",) * 3


def test_one_failed_candidate_does_not_touch_the_others() -> None:
    class Half:
        name = "half"

        def score(self, task: EditTask, images: np.ndarray) -> list[Verdict]:
            return [Verdict(0.5, {"success": 10.0}), Verdict.failure("unreadable answer"), Verdict(0.7)]

    scores = asyncio.run(score_group(Half(), TASK, group_of(3)))
    np.testing.assert_array_equal(scores.task_reward, [0.5, np.nan, 0.7])
    assert scores.reasons == (None, "unreadable answer", None)
    np.testing.assert_array_equal(scores.subscores["half.success"], [10.0, np.nan, np.nan])


def test_too_few_verdicts_are_a_failure_of_all() -> None:
    class Short:
        name = "short"

        def score(self, task: EditTask, images: np.ndarray) -> list[Verdict]:
            return [Verdict(0.5)]

    assert asyncio.run(score_group(Short(), TASK, group_of(3))).failed == 3


def test_a_task_without_a_target_is_not_judged_by_ground_truth() -> None:
    bare = EditTask(TASK.task_id, TASK.kind, TASK.source, TASK.instruction, TASK.mask)
    scores = asyncio.run(score_group(JUDGE, bare, group_of(2)))
    assert scores.failed == 2
    assert "no target" in (scores.reasons[0] or "")


def test_images_of_another_size_are_compared_at_that_size() -> None:
    small = decode_rgb(encode_png(TARGET.astype(np.uint8)))[::2, ::2]
    assert verdict(small.astype(np.float32)).reward > 0.5
