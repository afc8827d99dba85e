import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm import fdfo

WEIGHTS = torch.rand(5, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64) / 10


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 10_000))
def test_of_a_linear_reward_every_pair_pulls_uphill_as_far_as_it_is_steep_along_the_pair(seed: int) -> None:
    slope, candidates = randn(seed, 5, 4), randn(seed + 1, 4, 5, 4)
    rewards = (candidates * slope).sum(dim=(-2, -1))
    ones = torch.ones(5, 4, dtype=torch.float64)
    pulls = fdfo.pull(candidates, rewards, ones)
    for pulled, candidate in zip(pulls, candidates[1:], strict=True):
        along = (candidate - candidates[0]) / (candidate - candidates[0]).norm()
        torch.testing.assert_close(pulled, (slope * along).sum() * (candidate - candidates[0]), rtol=1e-9, atol=1e-9)
        assert float((pulled * slope).sum()) >= 0


def test_equal_images_and_failed_scores_pull_nowhere() -> None:
    candidates = randn(0, 4, 5, 4)
    candidates[2] = candidates[0]
    pulls = fdfo.pull(candidates, torch.tensor([0.5, 1.0, 2.0, torch.nan]), WEIGHTS)
    assert bool(pulls[0].abs().max() > 0)
    assert not pulls[1:].any()
    assert not fdfo.pull(candidates, torch.tensor([torch.nan, 1.0, 2.0, 3.0]), WEIGHTS).any()


def test_a_step_against_the_losss_gradient_moves_data_along_the_pull() -> None:
    velocity, direction, noise = randn(1, 3, 5, 4).requires_grad_(), randn(2, 3, 5, 4), randn(3, 3, 5, 4)
    (gradient,) = torch.autograd.grad(fdfo.loss(velocity, direction, WEIGHTS).sum(), velocity)
    torch.testing.assert_close(gradient, WEIGHTS * direction)
    velocity = velocity.detach()
    moved = (noise - (velocity - gradient)) - (noise - velocity)
    assert float((moved * direction).sum()) > 0
