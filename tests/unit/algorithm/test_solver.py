import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm.solver import integrate, kontext_sigmas, memories, step

from .strategies import Flow, randn, same_bits, seeds

METHODS = ["euler", "heun", "dpmpp_2m"]
methods = st.sampled_from(METHODS)
INSIDE = torch.linspace(0.9, 0.1, 6, dtype=torch.float64)
"""A schedule that meets neither end, as when a rollout is resumed half-way."""


class GaussianFlow:
    """The exact velocity of data ~ N(m, c^2): the one flow whose trajectories are known in closed form."""

    mean, scale = 1.5, 0.5

    def deviation(self, sigma: float) -> float:
        return math.hypot((1 - sigma) * self.scale, sigma)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        growth = (sigma - (1 - sigma) * self.scale**2) / self.deviation(sigma) ** 2
        return -self.mean + growth * (x - (1 - sigma) * self.mean)

    def solution(self, x: Tensor, start: float, end: float) -> Tensor:
        whitened = (x - (1 - start) * self.mean) / self.deviation(start)
        return (1 - end) * self.mean + self.deviation(end) * whitened


def test_kontext_sigmas_are_the_published_ones():
    sigmas = kontext_sigmas(8, 1024)
    assert sigmas.dtype == torch.float64
    expected = torch.tensor([1, 0.929, 0.849, 0.758, 0.652, 0.530, 0.385, 0.211, 0], dtype=torch.float64)
    torch.testing.assert_close(sigmas, expected, rtol=0, atol=6e-4)


@pytest.mark.parametrize(("tokens", "shift"), [(256, 0.5), (4096, 1.15), (2176, 0.825)])
def test_kontext_sigmas_have_the_digits_of_double_precision(tokens: int, shift: float) -> None:
    odds = [math.exp(shift) * s / (1 - s) for s in (3 / 4, 2 / 4, 1 / 4)]
    expected = torch.tensor([1.0, *(value / (1 + value) for value in odds), 0.0], dtype=torch.float64)
    torch.testing.assert_close(kontext_sigmas(4, tokens), expected, rtol=1e-14, atol=0)


@given(st.integers(1, 50), st.integers(1, 20_000))
def test_kontext_sigmas_run_from_one_to_zero_exactly(steps, tokens):
    sigmas = kontext_sigmas(steps, tokens)
    assert sigmas.shape == (steps + 1,)
    assert sigmas[0] == 1
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(("steps", "height", "width"), [(8, 512, 512), (28, 1024, 1024), (1, 256, 768)])
def test_kontext_sigmas_are_those_of_diffusers(steps, height, width):
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift

    tokens = (height // 16) * (width // 16)
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=calculate_shift(tokens, 256, 4096, 0.5, 1.15))
    torch.testing.assert_close(kontext_sigmas(steps, tokens).float(), scheduler.sigmas, rtol=0, atol=1e-6)


def test_dpmpp_2m_is_that_of_diffusers():
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", final_sigmas_type="zero", flow_shift=3.0
    )
    scheduler.set_timesteps(8)
    flow, theirs = Flow(4, 3, seed=0), randn(1, 4, 3)
    sigmas = scheduler.sigmas.double()
    with torch.no_grad():
        ours = integrate(flow, theirs, sigmas, "dpmpp_2m")
        for n, timestep in enumerate(scheduler.timesteps):
            theirs = scheduler.step(flow(theirs, sigmas[n].item()), timestep, theirs).prev_sample
            torch.testing.assert_close(ours[n + 1], theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "order", "ends", "order_to_the_ends"),
    [("euler", 1, 1024, 1.0), ("heun", 2, 1024, 2.0), ("dpmpp_2m", 2, 1024, 1.75)],
)
def test_the_error_falls_with_the_order_of_the_method(method, order, ends, order_to_the_ends):
    flow, x = GaussianFlow(), torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]

    def measured(start: float, end: float) -> float:
        errors = []
        for steps in (64, 256):
            sigmas = torch.linspace(start, end, steps + 1, dtype=torch.float64)
            errors.append((integrate(flow, x, sigmas, method)[-1] - flow.solution(x, start, end)).abs().max().item())
        return math.log(errors[0] / errors[1], 4)

    assert abs(measured(0.9, 0.1) - order) < 0.05
    assert abs(measured(1.0, 0.0) - order_to_the_ends) < 0.05


@pytest.mark.parametrize("method", ["heun", "dpmpp_2m"])
def test_the_second_order_solvers_beat_euler_at_the_default_number_of_steps(method):
    flow, x = GaussianFlow(), randn(0, 5, 2)
    exact = flow.solution(x, 1.0, 0.0)
    errors = {m: (integrate(flow, x, kontext_sigmas(8, 1024), m)[-1] - exact).abs().max() for m in ("euler", method)}
    assert errors[method] < errors["euler"]


@given(methods, st.integers(1, 12), st.integers(1, 8000), seeds)
def test_a_constant_velocity_is_integrated_exactly(method, steps, tokens, seed):
    x, slope = randn(seed, 4, 3), randn(seed + 1, 4, 3)
    sigmas = kontext_sigmas(steps, tokens)
    states = integrate(lambda x, sigma: slope, x, sigmas, method)
    torch.testing.assert_close(states, x + (sigmas - 1)[:, None, None] * slope, rtol=0, atol=1e-13)


@given(seeds)
def test_euler_is_equation_2(seed):
    flow, x, sigmas = Flow(4, 3, seed), randn(seed, 2, 4, 3), kontext_sigmas(5, 1024)
    states = integrate(flow, x, sigmas)
    assert states.shape == (6, 2, 4, 3)
    assert same_bits(states[0].detach(), x)
    for n in range(5):
        x = x + (sigmas[n + 1] - sigmas[n]).item() * flow(x, sigmas[n].item())
        assert same_bits(states[n + 1].detach(), x.detach())


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 6), ("heun", 11), ("dpmpp_2m", 6)])
def test_a_method_costs_what_it_says_and_never_asks_at_sigma_zero(method, evaluations):
    asked = []

    def velocity(x: Tensor, sigma: float) -> Tensor:
        asked.append(sigma)
        return x

    integrate(velocity, randn(0, 4, 3), kontext_sigmas(6, 1024), method)
    assert len(asked) == evaluations
    assert all(type(sigma) is float and sigma > 0 for sigma in asked)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_keep_their_dtype_under_a_half_precision_network(method, dtype):
    x = randn(0, 4, 3, dtype=dtype)
    half = integrate(lambda x, sigma: x.bfloat16(), x, kontext_sigmas(4, 1024), method)
    assert half.dtype == dtype
    widened = integrate(lambda x, sigma: x.bfloat16().to(dtype), x, kontext_sigmas(4, 1024), method)
    assert same_bits(half, widened)


@given(methods, seeds, st.booleans())
def test_memories_are_recovered_from_the_states_without_the_network(method, seed, inside):
    flow, sigmas = Flow(4, 3, seed), INSIDE if inside else kontext_sigmas(7, 1024)
    with torch.no_grad():
        states = integrate(flow, randn(seed, 2, 4, 3), sigmas, method)
        recovered = memories(states, sigmas, method)
        memory = None
        assert len(recovered) == len(sigmas) - 1
        for n in range(len(sigmas) - 1):
            assert (recovered[n] is None) == (memory is None)
            if memory is not None:
                torch.testing.assert_close(recovered[n], memory, rtol=1e-11, atol=1e-11)
            following, memory = step(flow, states[n], sigmas, n, memory, method)
            assert same_bits(following, states[n + 1])


def test_dpmpp_2m_falls_back_to_euler_where_it_has_no_finite_weight():
    flow, sigmas = Flow(4, 3, seed=0), kontext_sigmas(5, 1024)
    with torch.no_grad():
        states = integrate(flow, randn(1, 4, 3), sigmas, "dpmpp_2m")
        euler = [same_bits(step(flow, states[n], sigmas, n)[0], states[n + 1]) for n in range(5)]
    assert euler == [True, True, False, False, True]


@pytest.mark.parametrize("n", [0, 1, 4])
def test_where_dpmpp_2m_falls_back_it_needs_no_memory(n: int) -> None:
    flow, x, sigmas = Flow(4, 3, seed=0), randn(1, 4, 3), kontext_sigmas(5, 1024)
    following, data = step(flow, x, sigmas, n, None, "dpmpp_2m")
    assert same_bits(following.detach(), step(flow, x, sigmas, n)[0].detach())
    assert same_bits(data.detach(), (x - sigmas[n].item() * flow(x, sigmas[n].item())).detach())


@pytest.mark.parametrize(
    "sigmas",
    [
        torch.tensor([1.0]),
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([[1.0, 0.5], [0.2, 0.0]]),
        torch.tensor(1.0),
        torch.tensor([1.0, 0.5, 0.5]),
        torch.tensor([0.0, 1.0]),
        torch.tensor([1.5, 0.0]),
        torch.tensor([1.0, -0.5]),
        torch.tensor([1.0, math.nan, 0.0]),
    ],
)
def test_sigmas_that_are_no_schedule_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas is"):
        integrate(lambda x, sigma: x, torch.zeros(2, 2), sigmas)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("entries", [4, 6])
def test_a_trajectory_of_another_length_has_no_memories(method: str, entries: int) -> None:
    with pytest.raises(ValueError, match=f"states has {entries} entries and sigmas 5"):
        memories(torch.zeros(entries, 4, 3), kontext_sigmas(4, 1024), method)


def test_the_default_solver_is_euler_everywhere() -> None:
    flow, x, sigmas = Flow(4, 3, seed=0), randn(1, 4, 3), kontext_sigmas(4, 1024)
    euler = x + (sigmas[1] - sigmas[0]).item() * flow(x, 1.0)
    assert same_bits(step(flow, x, sigmas, 0)[0].detach(), euler.detach())
    assert same_bits(integrate(flow, x, sigmas)[1].detach(), euler.detach())
    assert memories(torch.zeros(5, 4, 3), sigmas) == [None] * 4


@pytest.mark.parametrize("n", [-1, -4, 4])
def test_a_step_outside_the_schedule_is_refused_before_the_network_is_asked(n: int) -> None:
    asked = []
    with pytest.raises(ValueError, match=f"n is {n}, expected 0 to 3"):
        step(lambda x, sigma: asked.append(sigma) or x, torch.zeros(4, 3), kontext_sigmas(4, 1024), n)
    assert asked == []


@pytest.mark.parametrize("shape", [(1, 4, 3), (4, 1), (3, 4), (1, 3)])
def test_a_velocity_that_would_only_broadcast_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="velocity returned shape"):
        step(lambda x, sigma: torch.ones(shape), torch.zeros(4, 3), kontext_sigmas(4, 1024), 0)


def test_heun_asks_at_the_far_end_of_a_schedule_that_stops_above_zero() -> None:
    asked = []
    integrate(lambda x, sigma: asked.append(sigma) or x, randn(0, 4, 3), INSIDE, "heun")
    assert asked == [level for pair in zip(INSIDE[:-1].tolist(), INSIDE[1:].tolist(), strict=True) for level in pair]


def test_bad_input_is_named():
    x, sigmas = torch.zeros(4, 3), kontext_sigmas(4, 1024)
    with pytest.raises(ValueError, match="steps is 0"):
        kontext_sigmas(0, 1024)
    with pytest.raises(ValueError, match="target_tokens is 0"):
        kontext_sigmas(4, 0)
    with pytest.raises(ValueError, match="method is 'rk4'"):
        integrate(lambda x, sigma: x, x, sigmas, "rk4")
    with pytest.raises(ValueError, match="method is 'rk4'"):
        memories(torch.zeros(5, 4, 3), sigmas, "rk4")
    with pytest.raises(ValueError, match="states has 3 entries"):
        memories(torch.zeros(3, 4, 3), sigmas, "euler")
    with pytest.raises(ValueError, match="n is 4"):
        step(lambda x, sigma: x, x, sigmas, 4)
    with pytest.raises(ValueError, match="velocity returned shape"):
        integrate(lambda x, sigma: x[:1], x, sigmas)
    with pytest.raises(ValueError, match="memory is None at step 2"):
        step(lambda x, sigma: x, x, sigmas, 2, None, "dpmpp_2m")
