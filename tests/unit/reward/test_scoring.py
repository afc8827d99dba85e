"""One judge's verdicts as a message: everything of them arrives, and only the judge's own failures become NaN."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from rc_grpo.editor.geometry import binary_mask, resize_mask
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores
from reward_service.judge import Judge, JudgeSetupError, JudgeUnavailableError, Verdict
from reward_service.scoring import score_group

from .test_ground_truth import TASK, group_of

Verdicts = Callable[[], Sequence[Verdict]]


class Saying:
    """A judge that answers by a function, and keeps what it was asked."""

    name = "saying"

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts
        self.asked: list[tuple[EditTask, np.ndarray, threading.Thread]] = []

    def score(self, task: EditTask, images: np.ndarray) -> Sequence[Verdict]:
        self.asked.append((task, images, threading.current_thread()))
        return self._verdicts()


class SayingLater(Saying):
    name = "later"

    async def score(self, task: EditTask, images: np.ndarray) -> Sequence[Verdict]:  # type: ignore[override]
        await asyncio.sleep(0)
        return super().score(task, images)


def ask(judge: Judge, group: CandidateGroup, name: str | None = None) -> GroupScores:
    return asyncio.run(score_group(judge, TASK, group, name=name))


def failing(error: Exception) -> Verdicts:
    def fail() -> Sequence[Verdict]:
        raise error

    return fail


@pytest.mark.parametrize("kind", [Saying, SayingLater])
def test_everything_of_the_verdicts_and_of_the_group_is_in_the_message(kind: type[Saying]) -> None:
    verdicts = [
        Verdict(0.25, {"success": 3.0, "artifacts": 4.0}, "so", attempts=2),
        Verdict(0.75, {"naturalness": 5.0}, None, attempts=4),
        Verdict.failure("gone", attempts=3),
    ]
    judge, acd = kind(lambda: iter(verdicts)), np.array([[[1.0, 2.0]], [[3.0, 5.0]], [[0.5, 0.5]]], dtype=np.float32)
    group = replace(group_of(3), task_id="of the group", acd=acd)
    scores = ask(judge, group)
    assert (scores.task_id, scores.judge, scores.attempts) == (TASK.task_id, kind.name, 4)
    np.testing.assert_array_equal(scores.task_reward, [0.25, 0.75, np.nan])
    np.testing.assert_array_equal(scores.acd_reward, [1.5, 4.0, 0.5])
    assert scores.reasons == ("so", None, "gone")
    assert list(scores.subscores) == [f"{kind.name}.{part}" for part in ("artifacts", "naturalness", "success")]
    np.testing.assert_array_equal(scores.subscores[f"{kind.name}.success"], [3.0, np.nan, np.nan])
    np.testing.assert_array_equal(scores.subscores[f"{kind.name}.naturalness"], [np.nan, 5.0, np.nan])
    ((task, images, _),) = judge.asked
    assert task is TASK
    assert images is group.images


def test_the_name_of_the_configuration_is_the_one_that_is_logged() -> None:
    judge = Saying(lambda: [Verdict(0.5, {"success": 3.0})])
    scores = ask(judge, group_of(1), name="mine")
    assert scores.judge == "mine"
    assert list(scores.subscores) == ["mine.success"]
    assert list(scores.rewards) == ["mine"]
    assert "judge mine returned 1 verdicts for 2 candidates" in (ask(judge, group_of(2), name="mine").reasons[0] or "")


@pytest.mark.parametrize("count", [0, 1, 2, 4, 6])
def test_another_number_of_verdicts_than_of_candidates_is_a_failure_of_all(count: int) -> None:
    scores = ask(Saying(lambda: [Verdict(0.5)] * count), group_of(3))
    assert scores.task_reward.shape == (3,)
    assert np.isnan(scores.task_reward).all()
    assert scores.reasons == (f"ValueError: judge saying returned {count} verdicts for 3 candidates",) * 3


@pytest.mark.parametrize("kind", [Saying, SayingLater])
@pytest.mark.parametrize("error", [JudgeUnavailableError("busy"), JudgeSetupError("wrong key")])
def test_a_judge_that_another_may_replace_or_none_can_use_is_an_error_and_no_score(
    kind: type[Saying], error: Exception
) -> None:
    with pytest.raises(type(error), match=str(error)):
        ask(kind(failing(error)), group_of(3))


@pytest.mark.parametrize("error", [KeyError("part"), RuntimeError("broken"), AssertionError("never")])
def test_whatever_else_a_judge_raises_is_nan_with_its_name_and_a_warning(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with caplog.at_level(logging.WARNING):
        scores = ask(Saying(failing(error)), group_of(2))
    assert scores.reasons == (f"{type(error).__name__}: {error}",) * 2
    assert scores.failed == 2
    assert caplog.messages == [f"scoring {TASK.task_id} failed: {error!r}"]


def test_a_plain_judge_is_asked_beside_the_event_loop_and_its_time_is_taken() -> None:
    def slow() -> Sequence[Verdict]:
        time.sleep(0.02)
        return [Verdict(0.5)]

    judge = Saying(slow)
    scores = ask(judge, group_of(1))
    assert judge.asked[0][2] is not threading.main_thread()
    assert 0.02 <= scores.latency < 10.0


def test_candidates_whose_region_looks_like_the_references_are_not_asked_about() -> None:
    group = group_of(5)
    inside = resize_mask(binary_mask(TASK.mask), *group.images.shape[1:3]) > 0
    images = np.repeat(group.images[:1] // 2, 5, axis=0)
    images[1, inside] += 3  # within
    images[2, np.argwhere(inside)[0][0], np.argwhere(inside)[0][1], 2] += 4  # beyond, in one channel of one pixel
    images[3, ~inside] += 90  # elsewhere alone
    images[4, inside] += 90
    judge = Saying(lambda: [Verdict(0.1), Verdict(0.2), Verdict.failure("gone")])
    scores = asyncio.run(score_group(judge, TASK, replace(group, images=images), prune=3))
    assert scores.pruned == (1, 3)
    np.testing.assert_array_equal(scores.task_reward, [0.1, np.nan, 0.2, np.nan, np.nan])
    np.testing.assert_array_equal(judge.asked[0][1], images[[0, 2, 4]])
    assert (scores.failed, scores.failures) == (1, ("gone",))
    assert scores.reasons[1] == "not asked: it looks like the reference"
    assert GroupScores.from_arrow(scores.to_arrow()).pruned == (1, 3)


def test_without_pruning_everyone_is_asked_about() -> None:
    group = group_of(3)
    judge = Saying(lambda: [Verdict(0.1)] * 3)
    assert ask(judge, replace(group, images=np.repeat(group.images[:1], 3, axis=0))).pruned == ()
