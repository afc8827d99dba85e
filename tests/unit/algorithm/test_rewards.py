import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.rewards import combine, group_advantages

from .strategies import randn, same_bits, seeds

NAN = math.nan
sizes = st.tuples(st.integers(1, 5), st.integers(3, 8))
affine = st.tuples(st.floats(0.1, 10.0), st.floats(-10.0, 10.0))


def some_failed(scores: torch.Tensor, seed: int) -> torch.Tensor:
    """Fail about a quarter of the scores, three a group never."""
    failed = torch.rand(scores.shape, generator=torch.Generator().manual_seed(seed)) < 0.25
    failed[:, :3] = False
    return scores.masked_fill(failed, NAN)


@given(sizes, seeds)
def test_each_reward_has_mean_zero_and_std_one_over_the_minibatch(size, seed):
    task, acd = some_failed(randn(seed, *size), seed), randn(seed + 1, *size)
    alone = combine(task, None, 0.0)
    counted = ~task.isnan()
    assert torch.equal(alone.isnan(), ~counted)
    assert abs(alone[counted].mean()) < 1e-12
    assert abs(alone[counted].std(correction=0) - 1) < 1e-12
    acd_alone = combine(task, acd, 0.5) - alone
    assert abs(acd_alone[counted].mean()) < 1e-12
    assert abs(acd_alone[counted].std(correction=0) - 0.5) < 1e-12


@given(sizes, st.floats(0.0, 2.0), seeds, affine, affine)
def test_advantages_ignore_affine_maps_of_either_reward(size, weight, seed, of_task, of_acd):
    task, acd = some_failed(randn(seed, *size), seed), randn(seed + 1, *size)
    before = group_advantages(combine(task, acd, weight), task=task)
    task, acd = of_task[0] * task + of_task[1], of_acd[0] * acd + of_acd[1]
    after = group_advantages(combine(task, acd, weight), task=task)
    assert before.skipped == after.skipped
    torch.testing.assert_close(after.advantages, before.advantages, rtol=1e-6, atol=1e-9, equal_nan=True)


@given(sizes, seeds, st.randoms(use_true_random=False))
def test_the_order_of_groups_changes_no_bit(size, seed, random):
    task, acd = some_failed(randn(seed, *size), seed), randn(seed + 1, *size)
    order = list(range(size[0]))
    random.shuffle(order)
    before, after = combine(task, acd, 0.5), combine(task[order], acd[order], 0.5)
    assert same_bits(after, before[order])
    assert same_bits(group_advantages(after).advantages, group_advantages(before).advantages[order])


@given(sizes, seeds, st.randoms(use_true_random=False))
def test_the_order_of_candidates_changes_no_bit(size, seed, random):
    task, acd = some_failed(randn(seed, *size), seed), randn(seed + 1, *size)
    order = list(range(size[1]))
    random.shuffle(order)
    before, after = combine(task, acd, 0.5), combine(task[:, order], acd[:, order], 0.5)
    assert same_bits(after, before[:, order])
    assert same_bits(group_advantages(after).advantages, group_advantages(before).advantages[:, order])


@given(sizes, seeds, st.floats(-1e6, 1e6), st.integers(1, 3))
def test_a_failed_score_enters_no_statistic(size, seed, attention, failures):
    task, acd = randn(seed, *size), randn(seed + 1, *size)
    combined = combine(task, acd, 0.5)
    advantages, skipped = group_advantages(combined, task=task)

    failed = torch.full((size[0], failures), NAN, dtype=torch.float64)
    more_task = torch.cat([failed, task], dim=1)
    more_acd = torch.cat([torch.full_like(failed, attention), acd], dim=1)
    more_combined = combine(more_task, more_acd, 0.5)
    more_advantages, more_skipped = group_advantages(more_combined, task=more_task)

    assert more_combined[:, :failures].isnan().all()
    assert same_bits(more_combined[:, failures:], combined)
    assert same_bits(more_advantages[:, failures:], advantages)
    assert more_skipped == skipped


def test_a_failed_attention_reward_takes_its_candidate_out_when_it_is_in_use():
    task = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    acd = torch.tensor([[1.0, NAN, 2.0, 1.5]])
    combined = combine(task, acd, 0.5)
    assert combined.isnan().tolist() == [[False, True, False, False]]
    assert same_bits(combined[:, [0, 2, 3]], combine(task[:, [0, 2, 3]], acd[:, [0, 2, 3]], 0.5))
    assert same_bits(combine(task, acd, 0.0), combine(task, None, 0.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reward_without_variance_standardises_to_zero(dtype):
    task = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype)
    full_mask = 1.0 + 1e-7 * torch.tensor([[0.0, 1.0, -1.0]], dtype=dtype)
    assert same_bits(combine(task, full_mask, 0.5), combine(task, None, 0.0))
    assert torch.equal(combine(torch.full((2, 3), 0.1, dtype=dtype), None, 0.0), torch.zeros(2, 3).double())
    assert combine(torch.full((2, 3), NAN, dtype=dtype), None, 0.0).isnan().all()


@given(sizes, seeds)
def test_advantages_have_mean_zero_and_std_one_in_each_group(size, seed):
    rewards = some_failed(randn(seed, *size), seed)
    advantages, skipped = group_advantages(rewards, epsilon=1e-12)
    assert advantages.dtype == torch.float64
    assert torch.equal(advantages.isnan(), rewards.isnan())
    assert skipped == (None,) * size[0]
    for row in advantages:
        valid = row[~row.isnan()]
        assert abs(valid.mean()) < 1e-9
        assert abs(valid.std(correction=0) - 1) < 1e-9


def test_it_is_equation_4_with_the_population_deviation_and_epsilon():
    advantages, _ = group_advantages(torch.tensor([[0.0, 0.01, NAN, 0.02]]))
    std = math.sqrt(2 / 3) * 0.01
    expected = torch.tensor([[-0.01, 0.0, NAN, 0.01]], dtype=torch.float64) / (std + 1e-4)
    torch.testing.assert_close(advantages, expected, equal_nan=True, rtol=1e-6, atol=1e-8)


@given(sizes, seeds, st.floats(0.1, 2.0))
def test_advantages_are_clipped(size, seed, clip):
    bound = group_advantages(randn(seed, *size), clip=clip).advantages
    free = group_advantages(randn(seed, *size), clip=math.inf).advantages
    assert same_bits(bound, free.clamp(-clip, clip))
    assert free.abs().max() <= math.sqrt(size[1] - 1)


@pytest.mark.parametrize(
    ("row", "task_row", "reason"),
    [
        ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 6.0, 7.0], None),
        ([1.0, 2.0, NAN, NAN], [5.0, 6.0, NAN, NAN], "too_few_valid"),
        ([NAN, NAN, NAN, NAN], [NAN, NAN, NAN, NAN], "too_few_valid"),
        ([1.0, 2.0, 3.0, 4.0], [7.0, 7.0, 7.0, 7.0], "tied_task_rewards"),
        ([1.0, 2.0, 3.0, NAN], [7.0, 7.0, 7.0, NAN], "tied_task_rewards"),
        ([1.0, 2.0, 3.0, NAN], [7.0, 7.0, 7.0, 9.0], "tied_task_rewards"),
        ([0.0, 0.001, 0.0, 0.001], [5.0, 6.0, 6.0, 7.0], "no_spread"),
    ],
)
def test_a_group_without_a_difference_is_skipped_with_its_reason(row, task_row, reason):
    good = [0.0, 1.0, 2.0, 4.0]
    advantages, skipped = group_advantages(torch.tensor([good, row]), task=torch.tensor([good, task_row]))
    assert skipped == (None, reason)
    assert torch.equal(advantages[1], torch.zeros(4).double()) == (reason is not None)
    assert same_bits(advantages[:1], group_advantages(torch.tensor([good])).advantages)


def test_the_skipping_rules_can_be_set():
    rewards = torch.tensor([[0.0, 1.0, NAN, NAN], [0.0, 1e-6, 0.0, 1e-6]], dtype=torch.float64)
    assert group_advantages(rewards).skipped == ("too_few_valid", "no_spread")
    assert group_advantages(rewards, min_valid=2, min_std=1e-7).skipped == (None, None)


@given(sizes, seeds, st.floats(0.3, 3.0))
def test_the_quasi_norm_changes_the_scale_of_a_group_and_nothing_else(size, seed, p):
    rewards = some_failed(randn(seed, *size), seed)
    by_std = group_advantages(rewards, clip=math.inf, epsilon=1e-12).advantages
    by_norm = group_advantages(rewards, clip=math.inf, epsilon=1e-12, quasi_norm_p=p).advantages
    for a, b in zip(by_std, by_norm, strict=True):
        a, b = a[~a.isnan()], b[~b.isnan()]
        assert abs((b.abs() ** p).mean() - 1) < 1e-6
        torch.testing.assert_close(b / b.std(correction=0), a, rtol=1e-6, atol=1e-9)
    by_two = group_advantages(rewards, clip=math.inf, epsilon=1e-12, quasi_norm_p=2.0).advantages
    torch.testing.assert_close(by_two, by_std, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clip": 0.0}, "clip is 0.0"),
        ({"min_valid": 1}, "min_valid is 1"),
        ({"min_std": -1.0}, "min_std is -1.0"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"quasi_norm_p": 0.0}, "quasi_norm_p is 0.0"),
        ({"task": torch.zeros(1, 3)}, "task has shape"),
        ({"rewards": torch.zeros(4)}, "rewards is torch.float32 of shape"),
        ({"rewards": torch.tensor([[1.0, math.inf, 2.0]])}, "rewards holds an infinite"),
    ],
)
def test_bad_options_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        group_advantages(**({"rewards": torch.zeros(2, 3)} | change))


@pytest.mark.parametrize(
    ("task", "acd", "weight", "named"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 2), 0.5, "acd has shape"),
        (torch.zeros(2, 3), None, 0.5, "acd is None"),
        (torch.zeros(2, 3), torch.zeros(2, 3), -0.5, "acd_weight is -0.5"),
        (torch.zeros(2, 3), torch.zeros(2, 3), NAN, "acd_weight is nan"),
        (torch.tensor([[1.0, -math.inf]]), None, 0.0, "task holds an infinite"),
        (torch.zeros(2, 3, dtype=torch.int64), None, 0.0, "task is torch.int64"),
    ],
)
def test_bad_rewards_are_named(task, acd, weight, named):
    with pytest.raises(ValueError, match=named):
        combine(task, acd, weight)
