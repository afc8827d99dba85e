"""Deterministic solvers of the sampling ODE, from noise (sigma 1) to image (sigma 0).

The velocity is noise minus data, so a state at sigma is ``(1 - sigma) data + sigma noise`` and its *data prediction* is
``x - sigma v``. A solver is its one-step function, `step`; `integrate` repeats it and `rc_grpo.algorithm.adjoint` runs
it backwards, so rollout and learner cannot disagree about what a step is.

Sigmas are float64 and enter as Python numbers; states keep the dtype they came in.
"""

import itertools
import math
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from rc_grpo.algorithm.method import Method

Velocity = Callable[[Tensor, float], Tensor]
"""v(x, sigma): the network with all else bound. Returns the shape of x, in any floating dtype."""

_KONTEXT_TOKENS = (256, 4096)
_KONTEXT_SHIFTS = (0.5, 1.15)


def kontext_sigmas(steps: int, target_tokens: int) -> Tensor:
    """Return the noise levels of the paper's editor: evenly spaced, then shifted to noise the more tokens there are.

    ::

        s_n  = 1 - n / T
        mu   = 0.5 + (1.15 - 0.5) * (N - 256) / (4096 - 256)
        s'_n = e^mu / (e^mu + 1 / s_n - 1)

    Args:
        steps: T, at least 1.
        target_tokens: N, tokens of the image to make (the reference image's do not count), at least 1.

    Returns:
        float64 ``[T+1]`` on the CPU, from 1 down to 0.

    Raises:
        ValueError: when either number is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected at least 1: the number of solver steps")
    if target_tokens < 1:
        raise ValueError(
            f"target_tokens is {target_tokens}, expected at least 1: (height / 16) * (width / 16) of the image"
        )
    (few, many), (low, high) = _KONTEXT_TOKENS, _KONTEXT_SHIFTS
    shift = math.exp(low + (high - low) * (target_tokens - few) / (many - few))
    even = [(steps - n) / steps for n in range(steps)]
    # The inner difference first: at s = 1 it is exactly 0, and the schedule starts at exactly 1.
    return torch.tensor([shift / (shift + (1.0 / s - 1.0)) for s in even] + [0.0], dtype=torch.float64)


def integrate(velocity: Velocity, x: Tensor, sigmas: Tensor, method: Method = "euler") -> Tensor:
    """Integrate from noise to image and return every state on the way (Eq. 12).

    Gradient flows through all steps unless the caller turns it off; `rc_grpo.algorithm.adjoint` gives the same
    gradient in the memory of one step.

    Args:
        velocity: the network.
        x: initial states ``[..., N, C]`` at ``sigmas[0]``.
        sigmas: noise levels ``[T+1]``, strictly decreasing within [0, 1].
        method: the solver.

    Returns:
        ``[T+1, ..., N, C]``, dtype of `x`; entry 0 is `x`.

    Raises:
        ValueError: on other sigmas, an unknown method, or a velocity of another shape than its state.
    """
    states = [x]
    memory: Tensor | None = None
    for n in range(len(_levels(sigmas)) - 1):
        x, memory = step(velocity, x, sigmas, n, memory, method)
        states.append(x)
    return torch.stack(states)


def step(
    velocity: Velocity, x: Tensor, sigmas: Tensor, n: int, memory: Tensor | None = None, method: Method = "euler"
) -> tuple[Tensor, Tensor | None]:
    """Take step n, from ``sigmas[n]`` to ``sigmas[n+1]`` (Eq. 2 for Euler).

    - ``euler``: ``x_{n+1} = x_n + (s_{n+1} - s_n) v(x_n, s_n)``.
    - ``heun``: the mean of the velocities at both ends, the far one at Euler's proposal; Euler for a step to sigma 0,
      where the network is not asked.
    - ``dpmpp_2m``: DPM-Solver++(2M) with data prediction ``D_n = x_n - s_n v_n`` and ``lambda = log((1 - s) / s)``. On
      this path its first-order form is Euler's step, so that::

          x_{n+1} = Euler + (1 - s_{n+1} / s_n) w_n (D_n - D_{n-1})
          w_n     = (lambda_{n+1} - lambda_n) / (2 (lambda_n - lambda_{n-1}))

      with w_n = 0, hence first order, at the first step (there is no D_{n-1}), at a step to sigma 0 (lambda is
      infinite), and after a step from sigma 1 (w_n tends to 0 there). That third case is our reading. The order stays
      two, up to a logarithm: towards both ends lambda grows without bound, and its steps never get small.

    Args:
        velocity: the network.
        x: states ``[..., N, C]`` at ``sigmas[n]``.
        sigmas: noise levels ``[T+1]``, strictly decreasing within [0, 1].
        n: which step, from 0 to T-1.
        memory: what the step before returned beside its states (see `memories` when only states were kept). None at
            step 0.
        method: the solver.

    Returns:
        The states at ``sigmas[n+1]``, and what the next step has to remember: D_n for ``dpmpp_2m``, None for
        the others.

    Raises:
        ValueError: on other sigmas, a step outside the schedule, an unknown method, a missing memory, or a velocity of
            another shape than its state.
    """
    levels = _levels(sigmas)
    _check_method(method)
    if not 0 <= n < len(levels) - 1:
        raise ValueError(f"n is {n}, expected 0 to {len(levels) - 2}: the schedule has {len(levels) - 1} steps")
    here, there = levels[n], levels[n + 1]
    slope = _evaluate(velocity, x, here)
    proposal = x + (there - here) * slope
    if method == "euler" or (method == "heun" and there == 0.0):
        return proposal, None
    if method == "heun":
        return x + (there - here) / 2 * (slope + _evaluate(velocity, proposal, there)), None
    data = x - here * slope
    weight = _lookback(levels, n)
    if weight == 0.0:
        return proposal, data
    if memory is None:
        raise ValueError(
            f"memory is None at step {n} of dpmpp_2m: pass what step {n - 1} returned, or solver.memories(...)[{n}]"
        )
    return proposal + (1.0 - there / here) * weight * (data - memory), data


def memories(states: Tensor, sigmas: Tensor, method: Method = "euler") -> list[Tensor | None]:
    """Recover what each step was told to remember from a stored trajectory, without evaluating the network.

    A ``dpmpp_2m`` step is linear in x_n, D_n and D_{n-1} with coefficients of the sigmas alone, so D_n follows from
    x_{n+1}, x_n and D_{n-1}. Exact but for rounding, of the order of the dtype's epsilon.

    Args:
        states: a trajectory of `integrate`, ``[T+1, ..., N, C]``.
        sigmas: its noise levels ``[T+1]``.
        method: its solver.

    Returns:
        T entries; entry n is the memory `step` takes at step n. All None for a solver that keeps none, entry 0 for any.

    Raises:
        ValueError: on other sigmas, an unknown method, or a number of states that does not fit the sigmas.
    """
    levels = _levels(sigmas)
    _check_method(method)
    if states.shape[0] != len(levels):
        raise ValueError(
            f"states has {states.shape[0]} entries and sigmas {len(levels)}, expected equal: pass the whole trajectory"
        )
    recovered: list[Tensor | None] = [None]
    for n in range(len(levels) - 2):
        if method != "dpmpp_2m":
            recovered.append(None)
            continue
        here, there = levels[n], levels[n + 1]
        # Neighbouring states are close: their difference is exact, and dividing it loses no digits.
        blended = states[n] + (states[n + 1] - states[n]) * (here / (here - there))
        weight, before = _lookback(levels, n), recovered[n]
        recovered.append(blended if before is None else (blended + weight * before) / (1.0 + weight))
    return recovered


def _lookback(levels: list[float], n: int) -> float:
    """Return w_n of dpmpp_2m: how far the step extrapolates along the last two data predictions."""
    if n == 0 or levels[n + 1] == 0.0:
        return 0.0
    before, here, there = (_log_odds(level) for level in levels[n - 1 : n + 2])
    # After a step from sigma 1 the denominator is infinite, and the quotient is its own limit: 0.
    return (there - here) / (2.0 * (here - before))


def _log_odds(level: float) -> float:
    return -math.inf if level == 1.0 else math.log1p(-level) - math.log(level)


def _evaluate(velocity: Velocity, x: Tensor, level: float) -> Tensor:
    slope = velocity(x, level)
    if slope.shape != x.shape:
        raise ValueError(
            f"velocity returned shape {list(slope.shape)} for a state of shape {list(x.shape)}, expected the same: "
            "keep the target image's tokens only"
        )
    # A half-precision network is widened before the update, or the state would be rounded to its format at every step.
    return slope.to(x.dtype)


def _levels(sigmas: Tensor) -> list[float]:
    levels: list[float] = sigmas.tolist() if sigmas.dim() == 1 else []
    if (
        len(levels) < 2
        or not (levels[0] <= 1.0 and levels[-1] >= 0.0)
        or not all(high > low for high, low in itertools.pairwise(levels))
    ):
        raise ValueError(
            f"sigmas is {sigmas.tolist()}, expected [T+1] strictly decreasing numbers within [0, 1]: see kontext_sigmas"
        )
    return levels


def _check_method(method: str) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}, expected one of {', '.join(get_args(Method))}")
