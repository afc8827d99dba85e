"""What counts as a difference, what the defaults are, and which options and rewards are refused, each at its edge."""

import math

import pytest
import torch
from torch import Tensor

from rc_grpo.algorithm.rewards import combine, ensemble, group_advantages

NAN, INF = math.nan, math.inf


def double(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("level", [1.0, -1.0, 1e-3, -250.0])
@pytest.mark.parametrize(("spread", "tied"), [(0.9e-6, True), (1.1e-6, False), (5e-4, False)])
def test_rewards_are_tied_up_to_a_millionth_of_their_magnitude(level: float, spread: float, tied: bool) -> None:
    task = double([level, level, level * (1 - spread), level])
    assert group_advantages(double([0.0, 1.0, 2.0, 3.0]), task=task).skipped == ("tied_task_rewards" if tied else None,)
    assert torch.equal(combine(task, None, 0.0), torch.zeros_like(task)) == tied


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_judge_that_gives_0_to_all_ties_them(dtype: torch.dtype) -> None:
    nothing = torch.zeros(2, 4, dtype=dtype)
    assert torch.equal(combine(nothing, None, 0.0), torch.zeros(2, 4).double())
    assert torch.equal(ensemble([nothing, nothing], [1.0, 2.0]), torch.zeros(2, 4).double())
    advantages, skipped = group_advantages(torch.rand(2, 4), task=nothing)
    assert skipped == ("tied_task_rewards",) * 2
    assert torch.equal(advantages, torch.zeros(2, 4).double())


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_an_advantage_is_clipped_at_5_unless_said_otherwise(sign: float) -> None:
    outlier = sign * double([0.0] * 63 + [1.0])
    free = math.sqrt(63)  # of one outlier among 64
    assert group_advantages(outlier).advantages[0, 63] == sign * 5.0
    assert abs(group_advantages(outlier, epsilon=1e-12, clip=math.inf).advantages[0, 63] - sign * free) < 1e-6
    assert group_advantages(outlier, 6.5).advantages[0, 63] == sign * 6.5


@pytest.mark.parametrize(("std", "skipped"), [(0.0009, "no_spread"), (0.0011, None)])
def test_a_group_spreads_from_a_thousandth_on_unless_said_otherwise(std: float, skipped: str | None) -> None:
    assert group_advantages(double([std, -std, std, -std])).skipped == (skipped,)


def test_a_spread_of_exactly_the_smallest_and_exactly_enough_candidates_are_enough() -> None:
    assert group_advantages(double([0.0, 2.0, 0.0, 2.0]), min_std=1.0).skipped == (None,)
    assert group_advantages(double([0.0, 2.0, 0.0, 2.0]), min_std=1.0 + 1e-9).skipped == ("no_spread",)
    assert group_advantages(double([0.0, 2.0, 3.0, NAN]), min_std=0.0).skipped == (None,)
    assert group_advantages(double([0.0, 2.0, 3.0, NAN]), min_valid=4).skipped == ("too_few_valid",)


@pytest.mark.parametrize("epsilon", [1.0, 1e-4])
def test_epsilon_is_added_to_the_deviation(epsilon: float) -> None:
    advantages = group_advantages(double([-1.0, 1.0, -1.0, 1.0]), epsilon=epsilon).advantages
    torch.testing.assert_close(advantages, double([-1.0, 1.0, -1.0, 1.0]) / (1.0 + epsilon), rtol=1e-12, atol=0)


def test_rewards_in_single_precision_are_compared_in_double() -> None:
    task = torch.tensor([[0.1, 0.2, 0.4, 0.7]])
    exact = task.double()
    z = (exact - exact.mean()) / exact.std(correction=0)
    torch.testing.assert_close(combine(task, None, 0.0), z, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(combine(task, task, 0.5), 1.5 * z, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ensemble([task, task], [1.0, 3.0]), 4 * z, rtol=1e-14, atol=1e-14)
    alone = ensemble([task], [2.0])
    assert alone.dtype == torch.float64
    torch.testing.assert_close(alone, exact, rtol=0, atol=0)
    advantages = group_advantages(task, epsilon=1e-12, min_std=0.0).advantages
    torch.testing.assert_close(advantages, z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("rewards", "options", "named"),
    [
        (double([1.0, 2.0]), {"clip": NAN}, "clip is nan"),
        (double([1.0, 2.0]), {"min_std": NAN}, "min_std is nan"),
        (double([1.0, 2.0]), {"epsilon": NAN}, "epsilon is nan"),
        (double([1.0, 2.0]), {"quasi_norm_p": NAN}, "quasi_norm_p is nan"),
        (double([1.0, 2.0]), {"quasi_norm_p": INF}, "quasi_norm_p is inf"),
        (double([1.0, 2.0]), {"task": double([1.0, INF])}, "task holds an infinite"),
        (double([1.0, 2.0], [3.0, 4.0]), {"task": double([1.0, 2.0])}, "task has shape"),
        (double([1.0, 2.0, 3.0]), {"task": double([1.0], [2.0], [3.0])}, "task has shape"),
        (torch.zeros(0, 3), {}, "rewards is torch.float32 of shape"),
        (torch.zeros(2, 0), {}, "rewards is torch.float32 of shape"),
        (torch.zeros(1, 2, 3), {}, "rewards is torch.float32 of shape"),
    ],
)
def test_advantages_of_what_is_no_number_or_no_group_are_refused(
    rewards: Tensor, options: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        group_advantages(rewards, **options)


@pytest.mark.parametrize(
    ("acd", "weight", "named"),
    [
        (double([1.0, 2.0, 3.0]), INF, "acd_weight is inf"),
        (double([1.0, 2.0, -INF]), 0.5, "acd holds an infinite"),
        (double([1.0], [2.0], [3.0]), 0.5, "acd has shape"),
        (torch.tensor([[1, 2, 3]]), 0.5, "acd is torch.int64"),
    ],
)
def test_an_attention_reward_that_is_no_number_is_refused(acd: Tensor, weight: float, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        combine(double([1.0, 2.0, 4.0]), acd, weight)


def test_an_attention_reward_of_another_number_of_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="acd has shape"):
        combine(double([1.0, 2.0], [3.0, 4.0]), double([1.0, 2.0]), 0.5)


@pytest.mark.parametrize("weight", [NAN, INF, -1.0, 0.0])
def test_each_judges_weight_has_to_count(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weights\[1\] is"):
        ensemble([double([1.0, 2.0]), double([3.0, 4.0])], [1.0, weight])


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (double([1.0, INF, 2.0, 3.0]), r"rewards\[1\] holds an infinite"),
        (double([1.0, 2.0], [3.0, 4.0]), r"rewards\[1\] has shape"),
        (double([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]), r"rewards\[1\] has shape"),
    ],
)
def test_each_judges_rewards_are_looked_at(second: Tensor, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        ensemble([double([1.0, 2.0, 3.0, 4.0]), second], [1.0, 1.0])
