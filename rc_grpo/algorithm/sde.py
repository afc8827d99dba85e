"""Stochastic sampling with a density: Flow-GRPO's arm, and MixGRPO's, which samples so in a window of steps only.

The ODE is replaced by an SDE with the same marginals, whose every step is a Gaussian (Flow-GRPO, arXiv 2505.05470,
section 4.2; MixGRPO, arXiv 2507.21802). With ``d = s_n - s_{n+1}`` and the network's velocity v::

    g^2    = a^2 s_n / (1 - s_n)
    mean_n = x_n - d (v + g^2 / (2 s_n) (x_n + (1 - s_n) v))
    std_n  = g sqrt(d)

The densities give probability ratios step by step, for every candidate, without anchors.

Left out of Flow-GRPO: its divergence from the base model in closed form (`objective.reference_penalty` is there for
every arm), and its denoising reduction for training, which `rollout.steps` below `evaluation.steps` is. Left out of
MixGRPO: its faster second-order solver behind the window (Flash variants), and a window that moves by a schedule other
than one stride every so many updates.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rc_grpo.algorithm.solver import Velocity


def spread(sigmas: Tensor, n: int, level: float) -> float:
    """Return the standard deviation of step n's noise.

    At sigma 1 the formula is infinite; like Flow-GRPO's code, the next level stands in for it there.

    Args:
        sigmas: noise levels ``[T+1]``, from 1 down to 0.
        n: which step.
        level: a, Flow-GRPO's noise level; 0 is the ODE.
    """
    here, there = float(sigmas[n]), float(sigmas[n + 1])
    return _diffusion(sigmas, n, level) * math.sqrt(here - there)


def mean(x: Tensor, slope: Tensor, sigmas: Tensor, n: int, level: float) -> Tensor:
    """Return the mean of the states after step n, in the shape and dtype of `x`.

    Args:
        x: states ``[..., N, C]`` at ``sigmas[n]``.
        slope: the network's velocity there.
        sigmas: noise levels ``[T+1]``.
        n: which step.
        level: a; 0 gives Euler's step of the ODE.
    """
    here, there = float(sigmas[n]), float(sigmas[n + 1])
    push = _diffusion(sigmas, n, level) ** 2 / (2.0 * here)
    return x + (there - here) * (slope + push * (x + (1.0 - here) * slope))


def integrate(
    velocity: Velocity, x: Tensor, sigmas: Tensor, level: float, window: range, noise: Callable[[int], Tensor]
) -> Tensor:
    """Sample from noise to image, by the SDE inside the window and by Euler's steps of the ODE outside.

    Args:
        velocity: the network.
        x: initial states ``[..., N, C]``.
        sigmas: noise levels ``[T+1]``.
        level: a.
        window: the stochastic steps.
        noise: of a step, N(0, 1) in the shape of `x`.

    Returns:
        ``[T+1, ..., N, C]``, entry 0 is `x`.
    """
    states = [x]
    for n in range(len(sigmas) - 1):
        slope = velocity(x, float(sigmas[n])).to(x.dtype)
        x = mean(x, slope, sigmas, n, level if n in window else 0.0)
        if n in window:
            x = x + spread(sigmas, n, level) * noise(n)
        states.append(x)
    return torch.stack(states)


def log_ratio(after: Tensor, mean_new: Tensor, mean_old: Tensor, std: float) -> Tensor:
    """Return the log of the ratio of two Gaussians' densities at a state, averaged over its elements.

    With ``D = mean_new - mean_old`` it is ``(<D, after - mean_old> - |D|^2 / 2) / (std^2 N C)``: exactly 0
    at D = 0. The average, instead of a sum, is Flow-GRPO's.

    Args:
        after: the sampled state ``[..., N, C]``.
        mean_new: under the weights being trained.
        mean_old: under the weights that sampled; a constant.
        std: of the step.

    Returns:
        ``[...]``.
    """
    mean_old = mean_old.detach()
    shift = mean_new - mean_old
    return ((shift * (after - mean_old)) - 0.5 * shift.square()).mean(dim=(-2, -1)) / std**2


def window(steps: int, size: int | None, moved: int) -> range:
    """Return MixGRPO's window after so many moves: it starts with the noisiest step and begins anew behind the last.

    Args:
        steps: T.
        size: steps of the window; None is all of them, which is Flow-GRPO.
        moved: by how many strides of one step.
    """
    if size is None or size >= steps:
        return range(steps)
    start = moved % (steps - size + 1)
    return range(start, start + size)


def _diffusion(sigmas: Tensor, n: int, level: float) -> float:
    here = float(sigmas[n])
    remaining = 1.0 - (here if here < 1.0 else float(sigmas[n + 1]))
    return level * math.sqrt(here / remaining)
