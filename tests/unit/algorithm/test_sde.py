import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from rc_grpo.algorithm import sde, solver

SIGMAS = solver.kontext_sigmas(6, 64)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_noise_it_is_eulers_solution() -> None:
    matrix = randn(0, 4, 4)

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return (x @ matrix).tanh() + sigma

    x = randn(1, 2, 5, 4)
    by_sde = sde.integrate(velocity, x, SIGMAS, 0.7, range(0), lambda n: torch.full_like(x, torch.nan))
    torch.testing.assert_close(by_sde, solver.integrate(velocity, x, SIGMAS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("level", [0.3, 0.9])
def test_the_sde_ends_in_the_distribution_that_the_ode_ends_in(level: float) -> None:
    """The velocity of Gaussian data is known in closed form, and so is where both should end: N(3, 0.5)."""
    middle, width = 3.0, 0.5

    def velocity(x: Tensor, sigma: float) -> Tensor:
        variance = ((1 - sigma) * width) ** 2 + sigma**2
        centred = x - (1 - sigma) * middle
        data = middle + (1 - sigma) * width**2 / variance * centred
        noise = sigma / variance * centred
        return noise - data

    sigmas = torch.linspace(1, 0, 401, dtype=torch.float64)
    end = sde.integrate(
        velocity, randn(2, 40_000, 1, 1), sigmas, level, range(400), lambda n: randn(10 + n, 40_000, 1, 1)
    )
    assert float(end[-1].mean()) == pytest.approx(middle, abs=0.02)
    assert float(end[-1].std()) == pytest.approx(width, rel=0.03)


@given(n=st.integers(0, 5), level=st.floats(0.05, 1.2), apart=st.floats(-0.5, 0.5))
def test_the_ratio_is_that_of_two_normal_densities(n: int, level: float, apart: float) -> None:
    std = sde.spread(SIGMAS, n, level)
    old, after = randn(3, 2, 5, 4), randn(4, 2, 5, 4)
    new = old + apart * std * randn(5, 2, 5, 4)
    after = old + std * after
    expected = (Normal(new, std).log_prob(after) - Normal(old, std).log_prob(after)).mean(dim=(-2, -1))
    torch.testing.assert_close(sde.log_ratio(after, new, old, std), expected, rtol=1e-8, atol=1e-10)


def test_the_ratio_of_a_policy_to_itself_is_one_and_has_the_scores_gradient() -> None:
    mean = randn(6, 3, 5, 4).requires_grad_()
    noise, std = randn(7, 3, 5, 4), 0.2
    ratio = sde.log_ratio(mean.detach() + std * noise, mean, mean, std)
    assert torch.equal(ratio, torch.zeros(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(ratio.sum(), mean)
    torch.testing.assert_close(gradient, noise / std / 20)


def test_the_noise_of_the_first_step_is_finite_and_of_a_step_what_the_formula_says() -> None:
    levels = SIGMAS.tolist()
    assert 0 < sde.spread(SIGMAS, 0, 0.7) < 1
    expected = 0.7 * (levels[2] / (1 - levels[2]) * (levels[2] - levels[3])) ** 0.5
    assert sde.spread(SIGMAS, 2, 0.7) == pytest.approx(expected, rel=1e-12)


def test_a_window_visits_every_step_and_begins_anew() -> None:
    assert [list(sde.window(4, 2, moved)) for moved in range(5)] == [[0, 1], [1, 2], [2, 3], [0, 1], [1, 2]]
    assert sde.window(4, None, 9) == sde.window(4, 7, 9) == range(4)
