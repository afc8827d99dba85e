"""Several judges, each on its own scale before they are added."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.rewards import combine, ensemble, group_advantages

from .strategies import randn, seeds

NAN = math.nan
sizes = st.tuples(st.integers(1, 4), st.integers(3, 8))
affine = st.tuples(st.floats(0.1, 10.0), st.floats(-10.0, 10.0))


@given(sizes, seeds)
def test_one_judge_is_its_own_reward(size, seed):
    reward = randn(seed, *size)
    assert torch.equal(ensemble([reward], [0.3]), reward)


@given(sizes, st.floats(0.1, 5.0), seeds, affine)
def test_a_judge_counts_by_its_weight_and_not_by_its_scale(size, weight, seed, scale):
    first, second = randn(seed, *size), randn(seed + 1, *size)
    before = ensemble([first, second], [1.0, weight])
    after = ensemble([first, scale[0] * second + scale[1]], [1.0, weight])
    torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-8)


@given(sizes, seeds)
def test_weights_are_relative(size, seed):
    first, second = randn(seed, *size), randn(seed + 1, *size)
    one = group_advantages(combine(ensemble([first, second], [1.0, 2.0]), None, 0.0)).advantages
    ten = group_advantages(combine(ensemble([first, second], [10.0, 20.0]), None, 0.0)).advantages
    torch.testing.assert_close(ten, one, rtol=1e-6, atol=1e-9)


@given(sizes, seeds)
def test_agreeing_judges_say_what_one_says_and_opposed_ones_nothing(size, seed):
    reward = randn(seed, *size)
    z = combine(reward, None, 0.0)
    torch.testing.assert_close(ensemble([reward, 7 * reward], [1.0, 2.0]), 3 * z)
    torch.testing.assert_close(ensemble([reward, -reward], [1.0, 1.0]), torch.zeros_like(z), atol=1e-12, rtol=0)


def test_a_candidate_that_one_judge_could_not_score_has_no_reward_and_leaves_all_statistics():
    first = torch.tensor([[0.1, 0.2, 0.9, 0.4]], dtype=torch.float64)
    second = torch.tensor([[0.5, 0.7, NAN, 0.6]], dtype=torch.float64)
    both = ensemble([first, second], [1.0, 1.0])
    assert both.isnan().tolist() == [[False, False, True, False]]
    kept = [0, 1, 3]
    torch.testing.assert_close(both[:, kept], ensemble([first[:, kept], second[:, kept]], [1.0, 1.0]))


@pytest.mark.parametrize(
    ("rewards", "weights", "says"),
    [
        ([], [], "at least one"),
        ([torch.ones(1, 3)], [1.0, 2.0], "as many of each"),
        ([torch.ones(1, 3), torch.ones(1, 4)], [1.0, 1.0], "shape"),
        ([torch.ones(1, 3)], [0.0], "above 0"),
        ([torch.full((1, 3), math.inf)], [1.0], "infinite"),
    ],
)
def test_what_cannot_be_added_is_said(rewards, weights, says):
    with pytest.raises(ValueError, match=says):
        ensemble(rewards, weights)
