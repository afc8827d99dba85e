import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.surrogate import log_policy, log_ratio, sample_anchors

from .strategies import groups, randn, seeds

steps = st.sampled_from([1e-9, 1e-4, 1.0, 30.0])
"""How far an anchor moves: from where the naive ratio is all noise to where exp overflows in single precision."""


@given(groups())
def test_the_policy_is_a_softmax_over_all_candidates_reference_included(group):
    log_pi = log_policy(group.candidates, group.anchor, group.weights)
    assert abs(log_pi.exp().sum() - 1) < 1e-12
    torch.testing.assert_close(log_pi, group.policy.log(), rtol=1e-12, atol=1e-12)


@given(groups(), st.randoms(use_true_random=False))
def test_policy_and_ratio_follow_a_permutation_of_the_candidates(group, random):
    order = list(range(len(group.candidates)))
    random.shuffle(order)
    moved = group.anchor + randn(7, *group.anchor.shape)
    log_pi = log_policy(group.candidates, group.anchor, group.weights)
    log_rho = log_ratio(group.candidates, moved, group.anchor, group.weights)
    torch.testing.assert_close(log_policy(group.candidates[order], group.anchor, group.weights), log_pi[order])
    torch.testing.assert_close(log_ratio(group.candidates[order], moved, group.anchor, group.weights), log_rho[order])


@given(groups(), st.sampled_from([torch.float32, torch.float64]))
def test_the_ratio_is_exactly_one_on_policy(group, dtype):
    candidates, anchor = group.candidates.to(dtype), group.anchor.to(dtype)
    log_rho = log_ratio(candidates, anchor, anchor, group.weights)
    assert log_rho.dtype == dtype
    assert torch.equal(log_rho, torch.zeros_like(log_rho))


@given(groups(), steps, seeds)
def test_the_ratio_is_the_difference_of_two_log_softmaxes(group, step, seed):
    moved = group.anchor + step * randn(seed, *group.anchor.shape)
    naive = log_policy(group.candidates, moved, group.weights) - log_policy(
        group.candidates, group.anchor, group.weights
    )
    log_rho = log_ratio(group.candidates, moved, group.anchor, group.weights)
    torch.testing.assert_close(log_rho, naive, rtol=1e-12, atol=1e-12)


@given(groups(), steps, seeds)
def test_the_ratio_has_mean_one_under_the_old_policy(group, step, seed):
    moved = group.anchor + step * randn(seed, *group.anchor.shape)
    log_rho = log_ratio(group.candidates, moved, group.anchor, group.weights)
    assert abs((group.policy * log_rho.exp()).sum() - 1) < 1e-10


@given(groups(), seeds)
def test_tiny_ratios_keep_their_digits_in_single_precision(group, seed):
    moved = (group.anchor + 1e-5 * randn(seed, *group.anchor.shape)).float()
    candidates, anchor = group.candidates.float(), group.anchor.float()
    exact = log_ratio(candidates.double(), moved.double(), anchor.double(), group.weights)
    stable = log_ratio(candidates, moved, anchor, group.weights)
    assert (stable - exact).abs().max() <= 1e-5 * exact.abs().max() + 1e-12


def test_small_ratios_keep_their_digits_in_single_precision_up_to_a_score_of_one() -> None:
    candidates, anchor, weights = randn(0, 6, 4, 2).float(), randn(1, 4, 2).float(), torch.full((4, 2), 0.1)
    for size in (2e-3, 0.02, 0.2):
        moved = anchor + size * randn(2, 4, 2).float()
        exact = log_ratio(candidates.double(), moved.double(), anchor.double(), weights)
        stable = log_ratio(candidates, moved, anchor, weights)
        assert (stable - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("scores", [(-16.0, -24.0), (-3.0, -30.0), (-0.5, -8.0), (2.0, -20.0)])
def test_the_tail_is_not_lost_where_every_candidate_becomes_less_probable(scores: tuple[float, float]) -> None:
    candidates = [score / -8.0 for score in scores]
    before, after = ([-((x - anchor) ** 2) / 2 for x in candidates] for anchor in (0.0, -8.0))
    shift = math.log(sum(map(math.exp, before))) - math.log(sum(map(math.exp, after)))
    exact = [new - old + shift for new, old in zip(after, before, strict=True)]
    states = torch.tensor(candidates, dtype=torch.float64)[:, None, None]
    one = torch.ones(1, 1, dtype=torch.float64)
    log_rho = log_ratio(states, -8 * one, 0 * one, one)
    torch.testing.assert_close(log_rho, torch.tensor(exact, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@given(groups(), seeds, st.sampled_from([torch.float32, torch.float64]))
def test_huge_moves_stay_finite_and_differentiable(group, seed, dtype):
    direction = randn(seed, *group.anchor.shape)
    scores = ((group.candidates - group.anchor) * group.weights * direction).sum(dim=(-2, -1))
    moved = (group.anchor + direction * 600 / scores.abs().max()).to(dtype).requires_grad_()
    log_rho = log_ratio(group.candidates.to(dtype), moved, group.anchor.to(dtype), group.weights)
    log_rho.sum().backward()
    assert log_rho.isfinite().all()
    assert moved.grad.isfinite().all()


@given(groups(), steps, seeds)
def test_the_gradient_is_that_of_the_log_softmax(group, step, seed):
    moved = (group.anchor + step * randn(seed, *group.anchor.shape)).requires_grad_()
    direction = randn(seed + 1, len(group.candidates))
    stable = log_ratio(group.candidates, moved, group.anchor, group.weights) @ direction
    naive = log_policy(group.candidates, moved, group.weights) @ direction
    torch.testing.assert_close(
        torch.autograd.grad(stable, moved)[0], torch.autograd.grad(naive, moved)[0], rtol=1e-9, atol=1e-12
    )


@given(groups())
def test_the_gradient_on_policy_is_the_closed_form(group):
    anchor = group.anchor.clone().requires_grad_()
    log_rho = log_ratio(group.candidates, anchor, anchor, group.weights)
    centre = torch.einsum("g,gnc->nc", group.policy, group.candidates)
    for i, candidate in enumerate(group.candidates):
        (gradient,) = torch.autograd.grad(log_rho[i], anchor, retain_graph=True)
        torch.testing.assert_close(gradient, group.weights * (candidate - centre), rtol=1e-10, atol=1e-13)


def test_rows_of_a_batch_do_not_touch_each_other():
    candidates, old = randn(0, 3, 5, 4, 2), randn(1, 2, 3, 4, 2)
    weights = torch.ones(4, 2, dtype=torch.float64)
    anchor = old + torch.tensor([0.0, 1e-3, 50.0], dtype=torch.float64)[:, None, None]
    log_rho = log_ratio(candidates, anchor, old, weights)
    assert log_rho.shape == (2, 3, 5)
    assert torch.equal(log_rho[:, 0], torch.zeros(2, 5, dtype=torch.float64))
    for b in range(2):
        for t in range(3):
            torch.testing.assert_close(log_rho[b, t], log_ratio(candidates[t], anchor[b, t], old[b, t], weights))
            torch.testing.assert_close(
                log_policy(candidates, anchor, weights)[b, t], log_policy(candidates[t], anchor[b, t], weights)
            )


@given(st.integers(2, 16), st.data(), seeds)
def test_the_reference_is_never_an_anchor(size, data, seed):
    count = data.draw(st.integers(1, size - 1))
    anchors = sample_anchors(size, count, seed)
    assert 0 not in anchors
    assert anchors == sorted(set(anchors))
    assert len(anchors) == count
    assert set(anchors) <= set(range(1, size))
    assert anchors == sample_anchors(size, count, seed)


@pytest.mark.parametrize(
    ("seed", "anchors"), [(7, [5, 9, 10, 11]), (8, [2, 3, 4, 6]), (1007, [2, 3, 4, 10]), (2**62 + 3, [2, 8, 10, 11])]
)
def test_anchors_do_not_change_between_releases(seed: int, anchors: list[int]) -> None:
    assert sample_anchors(12, 4, seed) == anchors


def test_every_perturbed_candidate_is_an_anchor_equally_often():
    draws = 4000
    counts = torch.zeros(8)
    for seed in range(draws):
        counts[sample_anchors(8, 3, seed)] += 1
    assert counts[0] == 0
    assert (counts[1:] / draws - 3 / 7).abs().max() < 4 * (3 / 7 * 4 / 7 / draws) ** 0.5


@pytest.mark.parametrize(
    ("size", "count", "named"), [(1, 1, "group_size is 1"), (4, 4, "count is 4"), (4, 0, "count is 0")]
)
def test_too_many_anchors_are_refused(size, count, named):
    with pytest.raises(ValueError, match=named):
        sample_anchors(size, count, seed=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"candidates": torch.zeros(4, 2)}, "candidates has shape"),
        ({"candidates": torch.zeros(3, 5, 2)}, "candidates has shape"),
        ({"anchor": torch.zeros(4, 1)}, "anchor has shape"),
        ({"anchor_old": torch.zeros(1, 4, 2)}, "anchor_old has shape"),
    ],
)
def test_bad_shapes_are_named(change, named):
    state = torch.zeros(4, 2)
    arguments = {"candidates": torch.zeros(3, 4, 2), "anchor": state, "anchor_old": state, "weights": state}
    with pytest.raises(ValueError, match=named):
        log_ratio(**(arguments | change))


@pytest.mark.parametrize(
    ("candidates", "anchor", "named"),
    [
        ((4, 2), (4, 2), "candidates has shape"),
        ((3, 1, 2), (4, 2), "candidates has shape"),
        ((3, 4, 1), (4, 2), "candidates has shape"),
        ((3, 4, 2), (1, 2), "anchor has shape"),
        ((3, 4, 2), (4, 1), "anchor has shape"),
        ((3, 4, 2), (2,), "anchor has shape"),
    ],
)
def test_states_that_would_only_broadcast_are_refused(
    candidates: tuple[int, ...], anchor: tuple[int, ...], named: str
) -> None:
    states, anchors, weights = torch.zeros(candidates), torch.zeros(anchor), torch.ones(4, 2)
    with pytest.raises(ValueError, match=named):
        log_policy(states, anchors, weights)
    with pytest.raises(ValueError, match=named):
        log_ratio(states, anchors, anchors, weights)


def test_old_anchors_of_another_batch_are_refused_even_if_they_would_broadcast() -> None:
    for shape in ((1, 4, 2), (4, 2), (2, 3, 4, 2)):
        with pytest.raises(ValueError, match="anchor_old has shape"):
            log_ratio(torch.zeros(5, 4, 2), torch.zeros(3, 4, 2), torch.zeros(shape), torch.ones(4, 2))


def test_an_old_anchor_carries_no_gradient():
    old = randn(0, 4, 2).requires_grad_()
    anchor = randn(1, 4, 2).requires_grad_()
    log_ratio(randn(2, 3, 4, 2), anchor, old, torch.ones(4, 2)).sum().backward()
    assert old.grad is None
    assert anchor.grad is not None
