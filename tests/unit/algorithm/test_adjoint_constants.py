"""What the adjoint takes as a constant, hands on detached, and refuses before anything is computed."""

import pytest
import torch
from torch import Tensor

from rc_grpo.algorithm import adjoint
from rc_grpo.algorithm.solver import Method, integrate, kontext_sigmas

from .strategies import Flow, randn, relative_error, same_bits

METHODS: list[Method] = ["euler", "heun", "dpmpp_2m"]
SIGMAS = kontext_sigmas(4, 1024)


class Path:
    """Which of the two ways back is taken, by one signature."""

    def __init__(self, name: str) -> None:
        self.chain = name == "chain"

    def __call__(self, flow: Flow, states: Tensor, gradients: Tensor, **options: object) -> None:
        if self.chain:
            adjoint.backward(flow, states, SIGMAS, gradients, **options)
        else:
            adjoint.step_backward(flow, states, SIGMAS, gradients, [3, 2, 1, 0], **options)


@pytest.fixture(params=["chain", "step"])
def path(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def stored(flow: Flow, method: Method, dtype: torch.dtype = torch.float64) -> Tensor:
    with torch.no_grad():
        return integrate(flow, randn(1, 4, 3, dtype=dtype), SIGMAS, method)


@pytest.mark.parametrize("method", METHODS)
def test_stored_states_and_their_gradients_are_constants(path: Path, method: Method) -> None:
    flow = Flow(4, 3, seed=0)
    states, gradients = stored(flow, method).requires_grad_(), randn(2, 5, 4, 3).requires_grad_()
    path(flow, 1.0 * states, 1.0 * gradients, method=method)
    assert states.grad is None
    assert gradients.grad is None
    expected = flow.gradients()
    flow.zero_grad()
    path(flow, states.detach(), gradients.detach(), method=method)
    assert same_bits(flow.gradients(), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_recomputed_state_is_told_detached_before_it_is_backpropagated(path: Path, method: Method) -> None:
    flow, told = Flow(4, 3, seed=0), []
    states = stored(flow, method)

    def backprop(scalar: Tensor) -> None:
        told.append("backprop")
        scalar.backward()

    def on_step(n: int, following: Tensor) -> None:
        assert not following.requires_grad
        told.append(n)

    path(flow, states, torch.ones_like(states), method=method, on_step=on_step, backprop=backprop)
    assert told == [3, "backprop", 2, "backprop", 1, "backprop", 0, "backprop"]


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_another_dtype_are_taken_in_that_of_the_states(path: Path, method: Method) -> None:
    flow, scalars = Flow(4, 3, 0, torch.float32), []
    states = stored(flow, method, torch.float32)

    def backprop(scalar: Tensor) -> None:
        scalars.append(scalar.dtype)
        scalar.backward()

    path(flow, states, randn(2, 5, 4, 3), method=method, backprop=backprop)
    assert scalars == [torch.float32] * 4
    single = flow.gradients()
    flow.zero_grad()
    path(flow, states, randn(2, 5, 4, 3).float(), method=method)
    assert same_bits(flow.gradients(), single)


def test_the_gradient_of_the_noise_has_the_dtype_of_the_states() -> None:
    flow = Flow(4, 3, 0, torch.float32)
    assert (
        adjoint.backward(flow, stored(flow, "euler", torch.float32), SIGMAS, randn(2, 5, 4, 3)).dtype == torch.float32
    )


def test_no_grad_around_them_does_not_stop_either_path(path: Path) -> None:
    flow = Flow(4, 3, seed=0)
    states = stored(flow, "euler")
    path(flow, states, torch.ones_like(states))
    once = flow.gradients()
    with torch.no_grad():
        path(flow, states, torch.ones_like(states))
    torch.testing.assert_close(flow.gradients(), 2 * once)


def test_the_default_solver_is_euler(path: Path) -> None:
    flow, recomputed = Flow(4, 3, seed=0), {}
    states = stored(flow, "euler")
    path(flow, states, torch.ones_like(states), on_step=lambda n, x: recomputed.update({n: x}))
    assert all(same_bits(recomputed[n], states[n + 1]) for n in range(4))


def test_the_state_that_is_told_is_the_recomputed_and_not_the_stored_one(path: Path) -> None:
    flow, told, levels = Flow(4, 3, seed=0), {}, SIGMAS.tolist()
    states = stored(flow, "euler")
    with torch.no_grad():
        flow.drop += 0.1
    path(flow, states, torch.ones_like(states), on_step=lambda n, x: told.update({n: x}))
    for n in range(4):
        recomputed = states[n] + (levels[n + 1] - levels[n]) * flow(states[n], levels[n])
        assert same_bits(told[n], recomputed.detach())
        assert not torch.equal(told[n], states[n + 1])


def test_a_memory_is_part_of_a_single_step_of_dpmpp_2m_and_carries_no_gradient() -> None:
    flow = Flow(4, 3, seed=0)
    states, gradients = stored(flow, "dpmpp_2m"), randn(2, 5, 4, 3)
    adjoint.step_backward(flow, states, SIGMAS, gradients, [2], method="dpmpp_2m")
    ours = flow.gradients()
    flow.zero_grad()
    s = SIGMAS.tolist()
    odds = torch.log((1 - SIGMAS) / SIGMAS)
    weight = ((odds[3] - odds[2]) / (2 * (odds[2] - odds[1]))).item()
    slope = flow(states[2], s[2])
    with torch.no_grad():
        before = states[1] - s[1] * flow(states[1], s[1])
    following = states[2] + (s[3] - s[2]) * slope + (1 - s[3] / s[2]) * weight * (states[2] - s[2] * slope - before)
    (following * gradients[3]).sum().backward()
    assert relative_error(ours, flow.gradients()) < 1e-9


@pytest.mark.parametrize("shape", [(5, 1, 3), (5, 4, 1), (5, 3, 4), (4, 3), (5, 1, 4, 3)])
def test_gradients_that_would_only_broadcast_are_refused(path: Path, shape: tuple[int, ...]) -> None:
    flow = Flow(4, 3, seed=0)
    with pytest.raises(ValueError, match="state_gradients has shape"):
        path(flow, stored(flow, "euler"), torch.ones(shape, dtype=torch.float64))


@pytest.mark.parametrize("steps", [[-1], [0, -1], [0, 4], [4], [2, 1, 2]])
def test_one_step_that_is_none_is_refused_before_any_is_taken(steps: list[int]) -> None:
    flow, calls = Flow(4, 3, seed=0), []
    states = stored(flow, "euler")
    with pytest.raises(ValueError, match=r"steps is \["):
        adjoint.step_backward(flow, states, SIGMAS, states, steps, backprop=calls.append)
    assert calls == []


def test_a_backprop_that_leaves_the_factor_without_a_gradient_is_named() -> None:
    flow, inputs = Flow(4, 3, seed=0), []
    states = stored(flow, "euler")
    with pytest.raises(ValueError, match="backprop left no gradient at step 3"):
        adjoint.backward(
            lambda x, sigma: inputs.append(x) or flow(x, sigma),
            states,
            SIGMAS,
            states,
            backprop=lambda scalar: scalar.backward(inputs=inputs[-1:]),
        )
