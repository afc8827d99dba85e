"""Explore, then exact: what is chosen, and that it is compared with the whole pool as far as that is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm.exploration import choose, combine_pool, whole_pool
from rc_grpo.algorithm.rewards import combine, group_advantages

from .strategies import randn, same_bits, seeds

NAN = math.nan


def pools(seed: int, size: int, count: int = 3) -> tuple[Tensor, Tensor]:
    """True rewards ``[P, M]``, and the places of the groups that are chosen by them."""
    truth = randn(seed, count, size)
    return truth, torch.tensor([choose(row, 6) for row in truth])


@given(seeds, st.integers(3, 9), st.integers(0, 12), st.integers(0, 4))
def test_the_best_and_the_worst_are_chosen_and_the_reference_always(
    seed: int, size: int, more: int, failed: int
) -> None:
    rewards = randn(seed, size + more)
    rewards[torch.randperm(len(rewards), generator=torch.Generator().manual_seed(seed))[:failed]] = NAN
    scored = {index: value for index, value in enumerate(rewards.tolist()) if index and not math.isnan(value)}
    chosen = choose(rewards, size)
    if len(scored) < size - 1:
        assert chosen is None
        return
    assert chosen is not None
    assert chosen[0] == 0
    assert list(chosen) == sorted(set(chosen))
    assert len(chosen) == size
    in_order = sorted(scored, key=scored.__getitem__)
    assert set(chosen[1:]) == {*in_order[: (size - 1) // 2], *in_order[len(in_order) - size // 2 :]}


def test_of_equals_the_earlier_is_the_better() -> None:
    assert choose(torch.tensor([9.0, 1, 1, 1, 1, 1]), 5) == (0, 1, 2, 4, 5)
    assert choose(torch.tensor([0.0, 2, 2, 1, 1]), 3) == (0, 1, 4)


@given(seeds, st.floats(0.01, 100), st.floats(-10, 10))
def test_a_pool_that_foretells_exactly_is_the_pool_itself_in_whatever_unit(
    seed: int, slope: float, shift: float
) -> None:
    truth, chosen = pools(seed, 20)
    found = whole_pool(truth.gather(1, chosen), slope * truth + shift, chosen)
    assert same_bits(found[:, :6], truth.gather(1, chosen))
    everyone = found[:, 6:].scatter(1, chosen, truth.gather(1, chosen))
    torch.testing.assert_close(everyone, truth, rtol=1e-9, atol=1e-9)


@given(seeds)
def test_rewards_are_foretold_by_least_squares(seed: int) -> None:
    explored, chosen = pools(seed, 15, count=1)
    exact = 0.3 * explored.gather(1, chosen) + randn(seed + 1, 1, 6)
    found = whole_pool(exact, explored, chosen)[0, 6:].numpy()
    line = np.polyfit(explored[0, chosen[0]].numpy(), exact[0].numpy(), 1)
    others = np.setdiff1d(np.arange(15), chosen[0].numpy())
    np.testing.assert_allclose(found[others], np.polyval(line, explored[0].numpy()[others]), rtol=1e-8, atol=1e-8)
    assert np.isnan(found[chosen[0].numpy()]).all()


@given(seeds)
def test_a_chosen_group_has_the_advantages_that_it_would_have_in_the_whole_pool(seed: int) -> None:
    truth, chosen = pools(seed, 20)
    whole = group_advantages(combine(truth, None, 0.0), math.inf, task=truth).advantages.gather(1, chosen)
    task = whole_pool(truth.gather(1, chosen), 0.5 * truth - 2.0, chosen)
    pool = combine_pool(task, torch.full((3, 6), NAN), 0.0)
    found = group_advantages(pool[:, :6], math.inf, task=task[:, :6], pool=pool).advantages
    torch.testing.assert_close(found, whole, rtol=1e-8, atol=1e-8)
    alone = group_advantages(combine(truth.gather(1, chosen), None, 0.0), math.inf).advantages
    assert (found.abs().amax(1) > alone.abs().amax(1)).all()


def test_a_group_without_a_pool_is_compared_with_itself() -> None:
    task, acd = randn(1, 3, 6), randn(2, 3, 6)
    task[1, 2], acd[2, 3] = NAN, NAN
    places = torch.arange(6).repeat(3, 1)
    everyone = whole_pool(task, torch.full((3, 9), NAN, dtype=torch.float64), places)
    pool = combine_pool(everyone, acd, 0.5)
    found = group_advantages(pool[:, :6], pool=pool)
    expected = group_advantages(combine(task, acd, 0.5))
    assert found.skipped == expected.skipped
    torch.testing.assert_close(found.advantages, expected.advantages, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_a_failed_exact_score_leaves_the_pool_and_an_explored_one_never_enters() -> None:
    truth, chosen = pools(5, 12)
    exact, explored = truth.gather(1, chosen), truth.clone()
    exact[0, 2] = NAN
    unknown = int(np.setdiff1d(np.arange(12), chosen[1].numpy())[0])
    explored[1, unknown] = NAN
    found = whole_pool(exact, explored, chosen)
    assert (~found.isnan()).sum(1).tolist() == [11, 11, 12]


def test_who_has_no_recording_counts_by_the_mean_of_its_group() -> None:
    task, acd = randn(3, 2, 9), randn(4, 2, 4)
    found = combine_pool(task, acd, 2.0)
    attention = (acd - acd.mean()) / acd.std(correction=0)
    scores = (task - task.mean()) / task.std(correction=0)
    torch.testing.assert_close(found[:, :4], scores[:, :4] + 2 * attention)
    torch.testing.assert_close(found[:, 4:], scores[:, 4:] + 2 * attention.mean(1, keepdim=True))


def test_a_pool_without_a_difference_foretells_the_groups_mean() -> None:
    exact, chosen = torch.tensor([[0.1, 0.5, 0.9]], dtype=torch.float64), torch.tensor([[0, 1, 4]])
    found = whole_pool(exact, torch.full((1, 5), 0.3), chosen)
    torch.testing.assert_close(found[0, [5, 6]], torch.tensor([0.5, 0.5], dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: choose(torch.zeros(1, 4), 3), r"rewards have shape \[1, 4\]"),
        (lambda: choose(torch.zeros(4), 2), "size is 2, expected at least 3"),
        (lambda: whole_pool(torch.zeros(1, 3), torch.zeros(1, 5), torch.zeros(1, 4).long()), "exact has shape"),
        (lambda: group_advantages(torch.zeros(2, 3), pool=torch.zeros(1, 3)), "a row for each of the 2 groups"),
    ],
)
def test_what_does_not_fit_is_said(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        call()
