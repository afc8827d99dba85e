"""The paper's Appendix A: how much of the rewards' spread is about the background, as the exploration grows."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm.perturbation import candidate_noise, global_noise
from rc_grpo.algorithm.solver import integrate, kontext_sigmas

from .strategies import masks, randn, seeds

AMOUNTS = [0.001, 0.01, 0.1]
backgrounds = masks.filter(lambda mask: not mask.all())


@st.composite
def background_rewards(draw: st.DrawFn):
    """A linear flow that mixes tokens within each region but not across, and a linear reward on its background."""
    mask, seed, method = draw(backgrounds), draw(seeds), draw(st.sampled_from(["euler", "heun", "dpmpp_2m"]))
    within = mask[:, None] == mask[None, :]
    mix, channels = randn(seed, len(mask), len(mask)) * within / len(mask), 0.3 * randn(seed + 1, 3, 3)
    taste = randn(seed + 2, len(mask), 3) * ~mask[:, None]

    def reward(noise: Tensor) -> Tensor:
        states = integrate(lambda x, sigma: x - mix @ x @ channels, noise, kontext_sigmas(4, 1024), method)
        return (taste * states[-1]).sum(dim=(-2, -1))

    return mask, reward, randn(seed + 3, len(mask), 3), randn(seed + 4, 15, len(mask), 3)


def slope(variances: list[Tensor]) -> float:
    """The power of the amount that a variance grows with, between the first and the last amount."""
    return math.log(variances[-1] / variances[0]) / math.log(AMOUNTS[-1] / AMOUNTS[0])


@given(background_rewards())
def test_under_rdp_it_grows_with_the_square_of_alpha_base_and_ignores_alpha_edit(problem):
    mask, reward, reference, deltas = problem
    weak = [reward(candidate_noise(reference, deltas, mask, 0.3, alpha)) for alpha in AMOUNTS]
    strong = [reward(candidate_noise(reference, deltas, mask, 0.9, alpha)) for alpha in AMOUNTS]
    assert abs(slope([rewards[1:].var() for rewards in weak]) - 2) < 1e-6
    assert abs(slope([rewards.var(correction=0) for rewards in weak]) - 2) < 0.1
    torch.testing.assert_close(strong, weak)


@given(background_rewards())
def test_under_global_exploration_it_grows_with_the_square_of_sigma(problem):
    _, reward, reference, deltas = problem
    rewards = [reward(global_noise(reference, deltas, sigma)) for sigma in AMOUNTS]
    assert abs(slope([row[1:].var() for row in rewards]) - 2) < 1e-6
    assert abs(slope([row.var(correction=0) for row in rewards]) - 2) < 0.1


@given(background_rewards())
def test_a_frozen_background_has_no_variance_at_all(problem):
    mask, reward, reference, deltas = problem
    rewards = reward(candidate_noise(reference, deltas, mask, 0.3, 0.0))
    assert rewards.var() < 1e-24
