import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm import nft

WEIGHTS = torch.rand(5, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64) / 10


def randn(seed: int) -> Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_noised_state_lies_between_candidate_and_noise_and_moves_from_one_to_the_other() -> None:
    final, noise = randn(0), randn(1)
    torch.testing.assert_close(nft.noised(final, noise, 1.0)[0], noise)
    step = (nft.noised(final, noise, 0.5 + 1e-6)[0] - nft.noised(final, noise, 0.5 - 1e-6)[0]) / 2e-6
    torch.testing.assert_close(step, nft.noised(final, noise, 0.5)[1], rtol=1e-6, atol=1e-6)


@given(optimal=st.floats(0, 1), strength=st.floats(0.1, 2))
def test_at_the_old_policy_the_better_half_attracts_and_the_worse_half_repels(optimal: float, strength: float) -> None:
    velocity = randn(2).requires_grad_()
    target = randn(3)
    optimals = torch.full((3,), optimal, dtype=torch.float64)
    value = nft.loss(velocity, velocity, target, optimals, strength, WEIGHTS).sum()
    (gradient,) = torch.autograd.grad(value, velocity)
    expected = 2 * strength * (2 * optimal - 1) * WEIGHTS * (velocity.detach() - target)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_a_candidate_that_is_optimal_for_sure_is_learned_by_flow_matching() -> None:
    old, target = randn(4), randn(5)
    sure = torch.ones(3, dtype=torch.float64)
    # At strength 1 the implicitly better policy is the policy itself.
    assert float(nft.loss(target, old, target, sure, 1.0, WEIGHTS).max()) < 1e-25
    expected = ((old - target).square() * WEIGHTS).sum(dim=(-2, -1))
    torch.testing.assert_close(nft.loss(old, old, target, sure, 1.0, WEIGHTS), expected)


def test_optimality_is_a_share_and_a_failed_score_stays_none() -> None:
    advantages = torch.tensor([-9.0, -2.5, 0.0, 5.0, torch.nan])
    result = nft.optimality(advantages, 5.0)
    torch.testing.assert_close(result, torch.tensor([0.0, 0.25, 0.5, 1.0, torch.nan]), equal_nan=True)
