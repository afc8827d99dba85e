"""The learning rate's factor, step by step."""

import itertools

import pytest

from learner.schedule import learning_rate_factor
from rc_grpo.config import LearnerConfig


def rates(schedule: str, warmup: int, total: int, steps: int) -> list[float]:
    factor = learning_rate_factor(LearnerConfig(schedule=schedule, warmup_updates=warmup), total)  # type: ignore[arg-type]
    return [factor(step) for step in range(steps)]


def test_schedules_warm_up_and_end_where_they_say() -> None:
    assert rates("constant", 2, 10, 11) == [0.5] + [1.0] * 10
    for schedule in ("linear", "cosine"):
        values = rates(schedule, 2, 10, 11)
        assert values[:2] == [0.5, 1.0]
        assert values[10] == pytest.approx(0.0, abs=1e-9)
        assert all(after <= before for before, after in itertools.pairwise(values[1:]))


@pytest.mark.parametrize(
    ("schedule", "after_warm_up"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, 0.5 + 8**-0.5, 0.5, 0.5 - 8**-0.5, 0.0]),
    ],
)
def test_the_factor_of_every_step_is_the_schedules(schedule: str, after_warm_up: list[float]) -> None:
    assert rates(schedule, 4, 8, 9) == pytest.approx([0.25, 0.5, 0.75, 1.0, *after_warm_up], abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_rate_that_came_down_to_nothing_stays_there(schedule: str) -> None:
    assert rates(schedule, 0, 4, 12)[4:] == pytest.approx([0.0] * 8, abs=1e-12)
    assert min(rates(schedule, 0, 4, 12)) >= 0.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_run_that_is_all_warm_up_has_a_rate(schedule: str) -> None:
    assert rates(schedule, 3, 3, 4) == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rates("linear", 0, 4, 1) == rates("cosine", 0, 4, 1) == [1.0]
