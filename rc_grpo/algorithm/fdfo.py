"""Finite-difference flow optimization, an arm: two samples from near noises, and the flow pulled towards the better.

(arXiv 2603.12893.) The whole sampling is one action. Of two candidates a and b whose noises are near each other, the
quotient ``(R_a - R_b) (x_a - x_b) / |x_a - x_b|`` estimates how the reward grows with the image, and the velocity at
every state on both ways is pulled along it; no ratio and no gradient through the solver. Here the pairs are
candidates of RDP and their group's reference, so that they differ inside the mask and hardly outside.

Left out: the paper's own pairs (a fresh small perturbation for each pair, where a group here shares its reference),
its stochastic solver, and its weighting over noise levels (here all trained steps weigh alike).
"""

import torch
from torch import Tensor


def pull(candidates: Tensor, advantages: Tensor, weights: Tensor) -> Tensor:
    """Return the direction in which each candidate's image should move, ``[B, N, C]``.

    Args:
        candidates: last states of the reference and of B candidates, ``[1 + B, N, C]``.
        advantages: of the same, ``[1 + B]``; a pair with a NaN pulls nowhere.
        weights: the metric's W, ``[N, C]``: distances are measured by it.
    """
    difference = candidates[1:] - candidates[:1]
    gained = advantages[1:] - advantages[:1]
    gained = torch.where(gained.isnan(), 0.0, gained).to(candidates.dtype)
    length = (difference.square() * weights).sum(dim=(-2, -1)).sqrt()
    # Two equal images say nothing, whatever their scores.
    scale = torch.where(length > 0, gained / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)
    return scale[:, None, None] * difference


def loss(velocity: Tensor, direction: Tensor, weights: Tensor) -> Tensor:
    """Return what pulls velocities along directions, ``[...]``; its gradient does not depend on the velocity.

    The velocity is noise minus data, so data moves along a direction when the velocity moves against it.

    Args:
        velocity: ``[..., N, C]``.
        direction: of `pull`, a constant.
        weights: the metric's W, ``[N, C]``.
    """
    return (velocity * direction.detach() * weights).sum(dim=(-2, -1))
