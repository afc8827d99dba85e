import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.objective import clip_fraction, clipped_surrogate, on_policy_pull, policy_kl
from rc_grpo.algorithm.surrogate import log_policy, log_ratio

from .strategies import Group, groups, randn, relative_error, seeds

NAN = math.nan
clips = st.sampled_from([1e-5, 1e-4, 1e-3, 0.2])


def gradient_on_policy(group: Group, advantages: torch.Tensor) -> torch.Tensor:
    anchor = group.anchor.clone().requires_grad_()
    log_rho = log_ratio(group.candidates, anchor, anchor, group.weights)
    (gradient,) = torch.autograd.grad(clipped_surrogate(advantages, log_rho, 1e-4), anchor)
    return gradient


@given(groups(), clips)
def test_on_policy_the_value_is_the_mean_advantage_and_the_divergence_zero(group, clip):
    advantages = group.advantages + 0.7
    log_rho = log_ratio(group.candidates, group.anchor, group.anchor, group.weights)
    log_old = log_policy(group.candidates, group.anchor, group.weights)
    torch.testing.assert_close(clipped_surrogate(advantages, log_rho, clip), advantages.mean())
    assert policy_kl(log_old, log_rho) == 0
    assert clip_fraction(advantages, log_rho, clip) == 0


@given(groups())
def test_autograd_agrees_with_the_closed_form(group):
    pull = on_policy_pull(group.candidates, group.advantages, group.weights)
    torch.testing.assert_close(gradient_on_policy(group, group.advantages), pull, rtol=1e-9, atol=1e-12)
    literal = group.weights * torch.einsum("g,gnc->nc", group.advantages, group.candidates) / len(group.candidates)
    torch.testing.assert_close(pull, literal, rtol=1e-9, atol=1e-12)


@given(groups(), st.floats(-3.0, 3.0))
def test_autograd_agrees_with_the_closed_form_for_advantages_that_are_not_centred(group, offset):
    advantages = group.advantages + offset
    pull = on_policy_pull(group.candidates, advantages, group.weights, anchor=group.anchor)
    torch.testing.assert_close(gradient_on_policy(group, advantages), pull, rtol=1e-9, atol=1e-12)


@given(groups().filter(lambda group: len(group.candidates) > 2), st.data())
def test_a_failed_candidate_is_not_in_the_loss_and_still_in_the_policy(group, data):
    failed = data.draw(st.integers(0, len(group.candidates) - 1))
    advantages = group.advantages.clone()
    advantages[failed] = NAN
    gradient = gradient_on_policy(group, advantages)
    pull = on_policy_pull(group.candidates, advantages, group.weights, anchor=group.anchor)
    torch.testing.assert_close(gradient, pull, rtol=1e-9, atol=1e-12)

    kept = torch.arange(len(advantages)) != failed
    centre = torch.einsum("g,gnc->nc", group.policy, group.candidates)
    expected = torch.einsum("g,gnc->nc", advantages[kept], group.candidates[kept] - centre) / kept.sum()
    torch.testing.assert_close(gradient, group.weights * expected, rtol=1e-9, atol=1e-12)


@given(groups(), clips, seeds)
def test_turning_the_advantages_around_turns_the_gradient_around(group, clip, seed):
    gradient = gradient_on_policy(group, group.advantages)
    torch.testing.assert_close(gradient_on_policy(group, -group.advantages), -gradient)
    pull = on_policy_pull(group.candidates, group.advantages, group.weights)
    torch.testing.assert_close(on_policy_pull(group.candidates, -group.advantages, group.weights), -pull)


@given(st.integers(1, 8), clips, seeds)
def test_it_is_equation_5_in_value_and_gradient(size, clip, seed):
    advantages = randn(seed, size)
    ours, theirs = (2 * clip * randn(seed + 1, 3, size)).requires_grad_(), None
    theirs = ours.detach().clone().requires_grad_()
    value = clipped_surrogate(advantages, ours, clip)
    rho = theirs.exp()
    literal = torch.minimum(advantages * rho, advantages * rho.clamp(1 - clip, 1 + clip)).mean()
    torch.testing.assert_close(value, literal, rtol=1e-12, atol=1e-15)
    value.backward()
    literal.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)
    assert clip_fraction(advantages, ours, clip) == (ours.grad == 0).double().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("advantage", "moved", "stops"),
    [
        (1.0, 1.001, True),
        (1.0, 0.999, False),
        (1.0, -1.001, False),
        (-1.0, -1.001, True),
        (-1.0, -0.999, False),
        (-1.0, 1.001, False),
    ],
)
def test_the_clip_stops_the_gradient_only_past_the_bound_the_advantage_pushes_to(dtype, advantage, moved, stops):
    clip = 1e-5
    log_rho = torch.tensor([moved * clip], dtype=dtype, requires_grad=True)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    clipped_surrogate(advantages, log_rho, clip).backward()
    assert (log_rho.grad.item() == 0) == stops
    assert clip_fraction(advantages, log_rho, clip).item() == float(stops)


@pytest.mark.parametrize(
    ("advantage", "ratio", "stops"),
    [(1.0, 1.19, False), (1.0, 1.21, True), (-1.0, 0.82, False), (-1.0, 0.79, True)],
)
def test_the_bounds_of_the_ratio_are_1_minus_and_1_plus_the_clip(advantage: float, ratio: float, stops: bool) -> None:
    log_rho = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    clipped_surrogate(torch.tensor([advantage]), log_rho, 0.2).backward()
    assert (log_rho.grad.item() == 0) == stops
    assert clip_fraction(torch.tensor([advantage]), log_rho, 0.2) == float(stops)


@pytest.mark.parametrize(("advantage", "bound"), [(1.0, math.log1p(0.25)), (-1.0, math.log1p(-0.25))])
def test_at_the_bound_itself_the_gradient_still_flows(advantage: float, bound: float) -> None:
    log_rho = torch.tensor([bound], dtype=torch.float64, requires_grad=True)
    clipped_surrogate(torch.tensor([advantage]), log_rho, 0.25).backward()
    assert log_rho.grad.item() != 0


def test_a_candidate_without_an_advantage_counts_and_has_no_gradient_to_stop() -> None:
    advantages, log_rho = torch.tensor([0.0, 0.0, 1.0, -1.0]), torch.tensor([2.0, -2.0, 2.0, -2.0])
    assert clip_fraction(advantages, log_rho, 0.1) == 0.5
    assert clip_fraction(advantages[:2], log_rho[:2], 0.1) == 0.0


def test_all_results_have_the_dtype_of_the_ratio_whatever_the_advantages_have() -> None:
    advantages, log_rho = torch.tensor([1.0, -1.0], dtype=torch.float64), torch.zeros(3, 2)
    assert clipped_surrogate(advantages, log_rho, 0.1).dtype == torch.float32
    assert clip_fraction(advantages, log_rho, 0.1).dtype == torch.float32
    assert clip_fraction(advantages, log_rho.double(), 0.1).dtype == torch.float64
    weights = torch.ones(4, 2, dtype=torch.float64)
    assert on_policy_pull(torch.zeros(2, 4, 2), advantages, weights).dtype == torch.float32


def test_the_divergence_pulls_on_the_new_policy_and_never_on_the_old() -> None:
    log_old = torch.log_softmax(randn(0, 2, 4), dim=-1).requires_grad_()
    log_rho = randn(1, 2, 4).requires_grad_()
    policy_kl(log_old, log_rho).backward()
    assert log_old.grad is None
    torch.testing.assert_close(log_rho.grad, -log_old.detach().exp() / 2)


def test_the_mean_runs_over_the_candidates_that_count_and_all_leading_dimensions():
    advantages = torch.tensor([[1.0, 3.0, NAN], [2.0, NAN, NAN]])
    log_rho = torch.zeros(4, 2, 3)
    assert clipped_surrogate(advantages, log_rho, 0.1) == 2.0
    assert clip_fraction(advantages, log_rho + 1.0, 0.1) == 1.0
    assert clip_fraction(torch.tensor([1.0, -1.0, NAN]), log_rho + 1.0, 0.1) == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_is_ever_nan(dtype):
    advantages = torch.tensor([1.0, -1.0, 0.0, NAN, 1.0, -1.0])
    log_rho = torch.tensor([900.0, -900.0, 900.0, NAN, -900.0, 0.5], dtype=dtype, requires_grad=True)
    value = clipped_surrogate(advantages, log_rho, 0.2)
    value.backward()
    assert value.isfinite()
    assert log_rho.grad.isfinite().all()
    assert torch.equal(log_rho.grad[:4], torch.zeros(4, dtype=dtype))


def test_a_group_of_failures_is_worth_nothing_and_stays_in_the_graph():
    log_rho = torch.zeros(2, 3, requires_grad=True)
    value = clipped_surrogate(torch.full((3,), NAN), log_rho, 0.1)
    assert value == 0
    value.backward()
    assert torch.equal(log_rho.grad, torch.zeros(2, 3))
    assert clip_fraction(torch.full((3,), NAN), log_rho, 0.1) == 0
    with pytest.raises(ValueError, match="advantages are all NaN"):
        on_policy_pull(torch.zeros(3, 2, 2), torch.full((3,), NAN), torch.ones(2, 2))


@given(groups(), seeds)
def test_the_divergence_is_a_divergence(group, seed):
    log_old = log_policy(group.candidates, group.anchor, group.weights)
    moved = group.anchor + randn(seed, *group.anchor.shape)
    log_rho = log_ratio(group.candidates, moved, group.anchor, group.weights)
    new = log_policy(group.candidates, moved, group.weights)
    expected = torch.nn.functional.kl_div(new, log_old, reduction="sum", log_target=True)
    torch.testing.assert_close(policy_kl(log_old, log_rho), expected, rtol=1e-9, atol=1e-13)
    assert policy_kl(log_old, log_rho) >= -1e-14
    stacked = policy_kl(log_old.expand(2, 3, -1), log_rho.expand(2, 3, -1))
    torch.testing.assert_close(stacked, policy_kl(log_old, log_rho))


@given(groups(), seeds)
def test_every_anchor_gets_the_same_pull(group, seed):
    pull = on_policy_pull(group.candidates, group.advantages, group.weights)
    for anchor in (group.anchor, group.candidates[-1], randn(seed, *group.anchor.shape)):
        torch.testing.assert_close(
            on_policy_pull(group.candidates, group.advantages, group.weights, anchor=anchor),
            pull,
            rtol=1e-9,
            atol=1e-12,
        )


def test_one_candidate_that_counts_is_enough_for_a_pull() -> None:
    candidates, weights = randn(0, 3, 4, 2), torch.full((4, 2), 0.5, dtype=torch.float64)
    pull = on_policy_pull(candidates, torch.tensor([NAN, 3.0, NAN]), weights)
    torch.testing.assert_close(pull, 0.5 * 3.0 * candidates[1], rtol=1e-12, atol=1e-12)


def test_the_pull_takes_leading_dimensions():
    candidates, advantages, anchors = randn(0, 5, 3, 4, 2), randn(1, 3), randn(2, 6, 5, 4, 2)
    weights = torch.ones(4, 2, dtype=torch.float64)
    pull = on_policy_pull(candidates, advantages, weights)
    assert pull.shape == (5, 4, 2)
    torch.testing.assert_close(pull[2], on_policy_pull(candidates[2], advantages, weights))
    exact = on_policy_pull(candidates, advantages, weights, anchor=anchors)
    assert exact.shape == (6, 5, 4, 2)
    torch.testing.assert_close(exact[4, 2], on_policy_pull(candidates[2], advantages, weights, anchor=anchors[4, 2]))


def test_the_pull_of_a_nearly_frozen_background_survives_single_precision():
    reference, deltas = randn(0, 1, 64, 4), randn(1, 11, 64, 4)
    candidates = torch.cat([reference, reference + 1e-4 * deltas]).float()
    advantages = randn(2, 12)
    advantages = (advantages - advantages.mean()) / advantages.std(correction=0)
    weights = torch.ones(64, 4)
    exact = on_policy_pull(candidates.double(), advantages, weights)
    pull = on_policy_pull(candidates, advantages, weights)
    assert pull.dtype == torch.float32
    assert relative_error(pull.double(), exact) < 1e-5


@pytest.mark.parametrize("clip", [0.0, 1.0, -0.1, NAN])
def test_a_clip_that_is_no_range_is_refused(clip):
    with pytest.raises(ValueError, match="clip is"):
        clipped_surrogate(torch.zeros(3), torch.zeros(3), clip)
    with pytest.raises(ValueError, match="clip is"):
        clip_fraction(torch.zeros(3), torch.zeros(3), clip)


@pytest.mark.parametrize("shape", [(1, 3), (3,), (3, 2), (6,)])
def test_a_divergence_of_other_anchors_is_refused_even_if_it_would_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="log_policy_old has shape"):
        policy_kl(torch.zeros(shape), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("candidates", "advantages", "weights", "named"),
    [
        ((4, 2), (4,), (4, 2), "candidates has shape"),
        ((3, 4, 2), (3,), (1, 2), "candidates has shape"),
        ((3, 4, 2), (3,), (2,), "candidates has shape"),
        ((3, 4, 2), (1, 3), (4, 2), "advantages has shape"),
        ((5, 3, 4, 2), (5, 3), (4, 2), "advantages has shape"),
    ],
)
def test_a_pull_of_other_shapes_is_refused(
    candidates: tuple[int, ...], advantages: tuple[int, ...], weights: tuple[int, ...], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        on_policy_pull(torch.zeros(candidates), torch.zeros(advantages), torch.zeros(weights))


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match="advantages has shape"):
        clipped_surrogate(torch.zeros(2), torch.zeros(3), 0.1)
    with pytest.raises(ValueError, match="log_policy_old has shape"):
        policy_kl(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="advantages has shape"):
        on_policy_pull(torch.zeros(3, 4, 2), torch.zeros(4), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="candidates has shape"):
        on_policy_pull(torch.zeros(3, 4, 2), torch.zeros(3), torch.zeros(4, 1))
