import itertools

import numpy as np
import pytest

from learner.schedule import learning_rate_factor
from learner.work import RunShape, batch_advantages, draw_anchors, draw_steps
from rc_grpo.config import LearnerConfig, ObjectiveConfig
from rc_grpo.messages import GroupScores

RUN = RunShape(seed=7, method="euler", steps=8, updates=10, max_staleness=0, judge_weights={"j": 1.0})


def scores(rewards: list[float]) -> GroupScores:
    return GroupScores("t", "j", np.array(rewards), np.linspace(1.0, 2.0, len(rewards)))


def test_skipped_groups_say_why_and_failed_candidates_have_no_advantage() -> None:
    batch = [scores([0.1, 0.5, 0.9, np.nan]), scores([0.3] * 4), scores([np.nan, np.nan, 0.1, 0.2])]
    advantages, skipped = batch_advantages(batch, RUN.judge_weights, ObjectiveConfig())
    assert skipped == (None, "tied_task_rewards", "too_few_valid")
    assert np.isnan(advantages[0, 3])
    assert advantages[0, :3].mean() == pytest.approx(0.0, abs=1e-9)
    assert not advantages[1:].any()


def test_anchors_are_a_function_of_seed_version_and_task_and_never_the_reference() -> None:
    drawn = draw_anchors(RUN, 3, "task", 12, 4)
    assert drawn == draw_anchors(RUN, 3, "task", 12, 4)
    assert len(set(drawn)) == 4
    assert 0 not in drawn
    assert len({draw_anchors(RUN, version, "task", 12, 4) for version in range(10)}) > 5


def test_trained_steps_are_all_or_a_draw_in_order() -> None:
    assert draw_steps(RUN, 0, "task", None) == tuple(range(8))
    drawn = draw_steps(RUN, 0, "task", 3)
    assert len(set(drawn)) == 3
    assert list(drawn) == sorted(drawn)
    assert set(drawn) <= set(range(8))


def test_schedules_warm_up_and_end_where_they_say() -> None:
    def rates(schedule: str) -> list[float]:
        factor = learning_rate_factor(LearnerConfig(schedule=schedule, warmup_updates=2), 10)  # type: ignore[arg-type]
        return [factor(step) for step in range(11)]

    assert rates("constant") == [0.5] + [1.0] * 10
    for schedule in ("linear", "cosine"):
        values = rates(schedule)
        assert values[:2] == [0.5, 1.0]
        assert values[10] == pytest.approx(0.0, abs=1e-9)
        assert all(after <= before for before, after in itertools.pairwise(values[1:]))
