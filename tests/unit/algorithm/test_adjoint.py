import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm import adjoint
from rc_grpo.algorithm.solver import integrate, kontext_sigmas, memories, step

from .strategies import Flow, randn, relative_error, same_bits, seeds

METHODS = ["euler", "heun", "dpmpp_2m"]
schedules = st.one_of(
    st.integers(1, 8).map(lambda steps: kontext_sigmas(steps, 1024)),
    st.just(torch.linspace(0.9, 0.1, 6, dtype=torch.float64)),
)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Flow, Tensor, Tensor, Tensor]:
    """A flow, the noise of two anchors, a schedule, and a direct gradient for every state."""
    tokens, channels, seed, sigmas = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(seeds), draw(schedules)
    shape = (2, tokens, channels)
    return Flow(tokens, channels, seed), randn(seed + 5, *shape), sigmas, randn(seed + 6, len(sigmas), *shape)


def rollout(flow: Flow, x: Tensor, sigmas: Tensor, method: str) -> Tensor:
    with torch.no_grad():
        return integrate(flow, x, sigmas, method)


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems())
def test_the_adjoint_is_autograd_through_the_whole_chain(method, problem):
    flow, x, sigmas, gradients = problem
    adjoint_x = adjoint.backward(flow, rollout(flow, x, sigmas, method), sigmas, gradients, method=method)
    adjoint_theta = flow.gradients()

    flow.zero_grad()
    leaf = x.clone().requires_grad_()
    (integrate(flow, leaf, sigmas, method) * gradients).sum().backward()
    assert relative_error(adjoint_theta, flow.gradients()) < 1e-9
    assert relative_error(adjoint_x, leaf.grad) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems())
@settings(max_examples=10)
def test_a_nonlinear_objective_goes_in_by_its_gradient(method, problem):
    flow, x, sigmas, targets = problem
    states = rollout(flow, x, sigmas, method).requires_grad_()
    (direct,) = torch.autograd.grad(torch.cos(states * targets).sum(), states)
    adjoint_x = adjoint.backward(flow, states, sigmas, direct, method=method)
    adjoint_theta = flow.gradients()
    assert states.grad is None

    flow.zero_grad()
    leaf = x.clone().requires_grad_()
    torch.cos(integrate(flow, leaf, sigmas, method) * targets).sum().backward()
    assert relative_error(adjoint_theta, flow.gradients()) < 1e-9
    assert relative_error(adjoint_x, leaf.grad) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_backprop_runs_once_a_step_whatever_the_gradients_are(method, scale):
    flow, sigmas, calls = Flow(4, 3, seed=0), kontext_sigmas(6, 1024), []

    def backprop(scalar: Tensor) -> None:
        calls.append(scalar.shape)
        scalar.backward()

    states = rollout(flow, randn(1, 4, 3), sigmas, method)
    adjoint.backward(flow, states, sigmas, scale * randn(2, *states.shape), method=method, backprop=backprop)
    assert calls == [torch.Size([])] * 6
    assert (flow.gradients().abs().max() > 0) == (scale > 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [1 / 7, 65536.0])
def test_an_engine_that_scales_the_scalar_scales_the_parameters_gradient_and_nothing_more(method, factor):
    flow, sigmas = Flow(4, 3, seed=0), kontext_sigmas(6, 1024)
    states = rollout(flow, randn(1, 4, 3), sigmas, method)
    gradients = randn(2, *states.shape)
    plain_x = adjoint.backward(flow, states, sigmas, gradients, method=method)
    plain_theta = flow.gradients()
    flow.zero_grad()
    scaled_x = adjoint.backward(
        flow, states, sigmas, gradients, method=method, backprop=lambda scalar: (factor * scalar).backward()
    )
    assert relative_error(scaled_x, plain_x) < 1e-13
    assert relative_error(flow.gradients(), factor * plain_theta) < 1e-13


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_learner_can_see_that_it_agrees_with_the_rollout(method, dtype):
    flow, sigmas, seen = Flow(4, 3, 0, dtype), kontext_sigmas(6, 1024), {}
    states = rollout(flow, randn(1, 4, 3, dtype=dtype), sigmas, method)
    gradient = adjoint.backward(
        flow, states, sigmas, torch.ones_like(states), method=method, on_step=lambda n, x: seen.update({n: x})
    )
    assert gradient.dtype == dtype
    assert list(seen) == [5, 4, 3, 2, 1, 0]
    for n, recomputed in seen.items():
        assert not recomputed.requires_grad
        if method == "dpmpp_2m":
            torch.testing.assert_close(recomputed, states[n + 1], rtol=20 * torch.finfo(dtype).eps, atol=1e-6)
        else:
            assert same_bits(recomputed, states[n + 1])


class LiveTensors:
    """Counts the tensors that autograd keeps for a backward pass, and how many it ever kept at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def hooks(self) -> torch.autograd.graph.saved_tensors_hooks:
        counter = self

        class Box:
            def __init__(self, tensor: Tensor) -> None:
                self.tensor = tensor
                counter.now += 1
                counter.peak = max(counter.peak, counter.now)

            def __del__(self) -> None:
                counter.now -= 1

        return torch.autograd.graph.saved_tensors_hooks(Box, lambda box: box.tensor)


@pytest.mark.parametrize("method", METHODS)
def test_memory_is_one_steps_however_many_steps_there_are(method):
    flow, peaks, chain_peaks = Flow(4, 3, seed=0), [], []
    for steps in (4, 16):
        sigmas = kontext_sigmas(steps, 1024)
        states = rollout(flow, randn(1, 4, 3), sigmas, method)
        live = LiveTensors()
        with live.hooks():
            adjoint.backward(flow, states, sigmas, torch.ones_like(states), method=method)
        peaks.append(live.peak)
        assert live.now == 0
        live = LiveTensors()
        with live.hooks():
            integrate(flow, randn(1, 4, 3), sigmas, method).sum().backward()
        chain_peaks.append(live.peak)
    assert peaks[0] == peaks[1]
    assert chain_peaks[1] > 3 * chain_peaks[0] > 3 * peaks[0]


@pytest.mark.parametrize("method", METHODS)
def test_parameter_gradients_accumulate_and_no_grad_does_not_stop_them(method):
    flow, sigmas = Flow(4, 3, seed=0), kontext_sigmas(4, 1024)
    states = rollout(flow, randn(1, 4, 3), sigmas, method)
    adjoint.backward(flow, states, sigmas, torch.ones_like(states), method=method)
    once = flow.gradients()
    with torch.no_grad():
        adjoint.backward(flow, states, sigmas, torch.ones_like(states), method=method)
    torch.testing.assert_close(flow.gradients(), 2 * once)


@pytest.mark.parametrize("method", METHODS)
@given(problem=problems())
@settings(max_examples=10)
def test_single_steps_are_autograd_of_single_steps(method, problem):
    flow, x, sigmas, gradients = problem
    states = rollout(flow, x, sigmas, method)
    trained = list(range(0, len(sigmas) - 1, 2))
    adjoint.step_backward(flow, states, sigmas, gradients, trained, method=method)
    ours = flow.gradients()

    flow.zero_grad()
    for n in trained:
        following, _ = step(flow, states[n], sigmas, n, memories(states, sigmas, method)[n], method)
        (following * gradients[n + 1]).sum().backward()
    assert relative_error(ours, flow.gradients()) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@given(seed=seeds)
def test_with_one_step_the_step_path_is_the_chain(method, seed):
    flow, sigmas = Flow(4, 3, seed), kontext_sigmas(1, 1024)
    states = rollout(flow, randn(seed, 4, 3), sigmas, method)
    gradients = randn(seed + 1, *states.shape)
    adjoint.backward(flow, states, sigmas, gradients, method=method)
    chain = flow.gradients()
    flow.zero_grad()
    adjoint.step_backward(flow, states, sigmas, gradients, [0], method=method)
    assert same_bits(flow.gradients(), chain)


def test_single_steps_report_and_backpropagate_in_the_order_they_are_named():
    flow, sigmas, seen, calls = Flow(4, 3, seed=0), kontext_sigmas(5, 1024), [], []
    states = rollout(flow, randn(1, 4, 3), sigmas, "euler")

    def on_step(n: int, recomputed: Tensor) -> None:
        assert same_bits(recomputed, states[n + 1])
        seen.append(n)

    adjoint.step_backward(
        flow, states, sigmas, 0 * states, [3, 0, 4], on_step=on_step, backprop=lambda s: (calls.append(s), s.backward())
    )
    assert seen == [3, 0, 4]
    assert len(calls) == 3


def test_bad_input_is_named():
    flow, sigmas = Flow(4, 3, seed=0), kontext_sigmas(3, 1024)
    states = rollout(flow, randn(1, 4, 3), sigmas, "euler")
    with pytest.raises(ValueError, match="state_gradients has shape"):
        adjoint.backward(flow, states, sigmas, states[1:])
    with pytest.raises(ValueError, match="state_gradients has shape"):
        adjoint.step_backward(flow, states, sigmas, states[1:], [0])
    with pytest.raises(ValueError, match="states has 4 entries"):
        adjoint.backward(flow, states, kontext_sigmas(5, 1024), states)
    with pytest.raises(ValueError, match="backprop left no gradient at step 2"):
        adjoint.backward(flow, states, sigmas, states, backprop=lambda scalar: None)
    with pytest.raises(ValueError, match=r"steps is \[0, 0\]"):
        adjoint.step_backward(flow, states, sigmas, states, [0, 0])
    with pytest.raises(ValueError, match=r"steps is \[3\]"):
        adjoint.step_backward(flow, states, sigmas, states, [3])
    assert all(parameter.grad is None for parameter in flow.parameters())
