"""The discrete adjoint: the gradient through a whole rollout in the memory of one step.

Autograd through T steps keeps T networks' activations. The states alone determine them, so each step is recomputed
when its turn comes, last step first, and one vector-Jacobian product hands the gradient on to the state before. Cost:
one forward and one backward pass a step, T times; memory: one step's.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rc_grpo.algorithm import solver
from rc_grpo.algorithm.method import Method
from rc_grpo.algorithm.solver import Velocity

Backprop = Callable[[Tensor], object]
"""Runs backward from a scalar, which it may first multiply by a constant, as training engines do."""

OnStep = Callable[[int, Tensor], object]
"""Receives n and state n+1 as recomputed, detached: equal to the stored one when rollout and learner agree."""


def backward(
    velocity: Velocity,
    states: Tensor,
    sigmas: Tensor,
    state_gradients: Tensor,
    *,
    method: Method = "euler",
    backprop: Backprop = torch.Tensor.backward,
    on_step: OnStep | None = None,
) -> Tensor:
    """Backpropagate through the chain of all steps (the gradient of Eq. 13).

    With ``g_n = dJ/dx_n`` as J depends on the state directly, and ``Phi_n`` one solver step::

        lam_T     = g_T
        lam_n     = g_n + (dPhi_n / dx_n)^T lam_{n+1}
        dJ/dtheta = sum_n (dPhi_n / dtheta)^T lam_{n+1}

    each transposed product from one call of `backprop` on the scalar ``<Phi_n(x_n), lam_{n+1}>``. A solver with a
    memory is a chain on the pair (state, memory), and its scalar has both parts.

    `backprop` is called exactly T times whatever the gradients are, zero included: where it is a collective
    (DeepSpeed's ``engine.backward``), ranks stay in step. Parameter gradients accumulate wherever it leaves them,
    scaled as it scales them; the gradient handed from step to step has that factor divided out.

    Args:
        velocity: the network, as in the rollout.
        states: the stored trajectory ``[T+1, ..., N, C]``, as `solver.integrate` returned it under the same weights.
        sigmas: its noise levels ``[T+1]``.
        state_gradients: the g_n, shape of `states`; 0 where J does not look.
        method: its solver.
        backprop: called with each step's scalar.
        on_step: called after each recomputation, before its `backprop`; n runs from T-1 down to 0.

    Returns:
        dJ/dx_0, shape ``[..., N, C]``: through the chain, plus ``state_gradients[0]``.

    Raises:
        ValueError: on shapes that do not fit together, whatever `solver.step` refuses, or a `backprop` that left no
            gradient.
    """
    _check(states, state_gradients)
    memories = solver.memories(states.detach(), sigmas, method)
    state_gradients = state_gradients.detach().to(states.dtype)
    gradient = state_gradients[-1]
    memory_gradient: Tensor | None = None
    for n in reversed(range(len(memories))):
        x = _leaf(states[n])
        past = memories[n]
        memory = None if past is None else _leaf(past)
        # Its gradient is whatever factor backprop put on the scalar, which the gradient of x then carries as well.
        factor = torch.zeros((), dtype=states.dtype, device=states.device, requires_grad=True)
        with torch.enable_grad():
            following, remembered = solver.step(velocity, x, sigmas, n, memory, method)
            scalar = (following * gradient).sum() + factor
            if remembered is not None and memory_gradient is not None:
                scalar = scalar + (remembered * memory_gradient).sum()
        if on_step is not None:
            on_step(n, following.detach())
        backprop(scalar)
        if x.grad is None or factor.grad is None:
            raise ValueError(
                f"backprop left no gradient at step {n}: it has to run backward from the scalar it is given"
            )
        gradient = x.grad / factor.grad + state_gradients[n]
        memory_gradient = None if memory is None or memory.grad is None else memory.grad / factor.grad
    return gradient


def step_backward(
    velocity: Velocity,
    states: Tensor,
    sigmas: Tensor,
    state_gradients: Tensor,
    steps: Sequence[int],
    *,
    method: Method = "euler",
    backprop: Backprop = torch.Tensor.backward,
    on_step: OnStep | None = None,
) -> None:
    """Backpropagate through single steps, each from its stored state: what Neighbor GRPO does (anchor path ``step``).

    ::

        xbar_{n+1} = Phi_n(x_n; theta)
        dJ/dtheta  = sum_n (dPhi_n / dtheta)^T g_{n+1}

    The stored states and memories are constants. With T = 1 it is `backward`, and in general that without its chain
    terms.

    Args:
        velocity: the network, as in the rollout.
        states: the stored trajectory ``[T+1, ..., N, C]``.
        sigmas: its noise levels ``[T+1]``.
        state_gradients: the g_n, shape of `states`; only entries n+1 of the trained steps n are read.
        steps: the steps n to train, each from 0 to T-1 and at most once. `backprop` is called once for each, in this
            order.
        method: its solver.
        backprop: called with each step's scalar.
        on_step: called after each recomputation, before its `backprop`.

    Raises:
        ValueError: on shapes that do not fit together, a step named twice, or whatever `solver.step` refuses.
    """
    _check(states, state_gradients)
    if len(set(steps)) != len(steps):
        raise ValueError(f"steps is {list(steps)}, expected each step once: draw the trained steps without replacement")
    states, state_gradients = states.detach(), state_gradients.detach().to(states.dtype)
    memories = solver.memories(states, sigmas, method)
    if not all(0 <= n < len(memories) for n in steps):
        raise ValueError(
            f"steps is {list(steps)}, expected numbers from 0 to {len(memories) - 1}: step n leads to state n+1"
        )
    for n in steps:
        with torch.enable_grad():
            following, _ = solver.step(velocity, states[n], sigmas, n, memories[n], method)
            scalar = (following * state_gradients[n + 1]).sum()
        if on_step is not None:
            on_step(n, following.detach())
        backprop(scalar)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _check(states: Tensor, state_gradients: Tensor) -> None:
    if state_gradients.shape != states.shape:
        raise ValueError(
            f"state_gradients has shape {list(state_gradients.shape)} and states {list(states.shape)}, expected equal: "
            "one gradient a stored state, 0 where the objective does not look"
        )
