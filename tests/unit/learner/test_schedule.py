"""The learning rate's factor, step by step."""

import itertools

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from learner.schedule import follow_plan, learning_rate_factor
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


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_without_warm_up_it_is_transformers_schedule_to_the_end_of_the_plan(schedule: str) -> None:
    optimiser, _ = optimiser_of(LearnerConfig(), 120)
    theirs = get_scheduler(schedule, optimiser, num_warmup_steps=0, num_training_steps=120).lr_lambdas[0]
    # A linear one is counted from the other end, and so rounded otherwise.
    assert rates(schedule, 0, 120, 121) == pytest.approx([theirs(step) for step in range(121)], rel=0, abs=2e-16)


def test_without_warm_up_the_first_step_has_the_whole_rate() -> None:
    assert rates("linear", 0, 4, 1) == rates("cosine", 0, 4, 1) == [1.0]


def optimiser_of(config: LearnerConfig, total: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    return optimiser, LambdaLR(optimiser, learning_rate_factor(config, total))


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("made", [0, 2, 4])
@pytest.mark.parametrize("total", [4, 10])
def test_after_a_checkpoint_the_rate_is_that_of_the_updates_that_are_planned_now(
    schedule: str, made: int, total: int
) -> None:
    config = LearnerConfig(schedule=schedule, warmup_updates=1, learning_rate=0.3)  # type: ignore[arg-type]
    (before, old), (optimiser, new) = optimiser_of(config, 4), optimiser_of(config, total)
    for _ in range(made):
        before.step()
        old.step()
    new.load_state_dict(old.state_dict())
    optimiser.load_state_dict(before.state_dict())
    follow_plan(new)
    used = []
    for _ in range(made, total):
        used.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        new.step()
    assert used == [0.3 * factor for factor in rates(schedule, 1, total, total)[made:]]
