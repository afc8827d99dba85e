"""The surrogate policy: a deterministic sampler has no density, so nearness to the candidates stands in for one.

An *anchor* is a candidate's noise integrated again under the weights being trained. The closer it comes to a
candidate, the more probable that candidate is said to be; moving the anchor towards good candidates is the policy
gradient.

Shapes below are for one anchor at one step. Leading dimensions broadcast: states ``[T, G, N, C]`` of T steps and
anchors ``[B, T, N, C]`` give ``[B, T, G]``.
"""

import hashlib

import torch
from torch import Tensor

from rc_grpo.algorithm.metric import masked_distance

_STABLE_UP_TO = 1.0
"""Largest score difference for which log1p(sum expm1) is used; it is where both forms have all their digits."""


def log_policy(candidates: Tensor, anchor: Tensor, weights: Tensor) -> Tensor:
    """Return the log-probability of every candidate, given where the anchor is (Eq. 7, 14).

    ::

        pi(i | t, k) = softmax_i( -d2(x_i, xbar) / 2 )

    over all G candidates, the reference included.

    Args:
        candidates: states of the group at one step, ``[G, N, C]``.
        anchor: state of the anchor at that step, ``[N, C]``.
        weights: the metric's W, ``[N, C]``.

    Returns:
        ``[G]``, the dtype of the states.

    Raises:
        ValueError: on shapes that do not fit together.
    """
    _check(candidates, anchor, weights)
    return torch.log_softmax(-0.5 * masked_distance(candidates, anchor.unsqueeze(-3), weights), dim=-1)


def log_ratio(candidates: Tensor, anchor: Tensor, anchor_old: Tensor, weights: Tensor) -> Tensor:
    """Return the log of the probability ratio new over old for every candidate (Eq. 15), exact near the old policy.

    With ``D = xbar_theta - xbar_old``, what all candidates share cancels on paper instead of in floating point (the
    quotient is the paper's, this form of it is our reading)::

        s_i       = <D, W (x_i - xbar_old)>
        log rho_i = s_i - log   sum_j pi_old(j) exp(s_j)
                  = s_i - log1p sum_j pi_old(j) expm1(s_j)

    It is exactly 0 at D = 0, where a difference of two log-softmaxes is rounding noise as large as the clip range.
    Rows with a score beyond 1 in magnitude take the first form, which neither overflows nor loses the tail.

    `anchor_old` is a constant by definition and is detached, so passing the anchor itself is the on-policy case: ratio
    1 and the right gradient.

    Args:
        candidates: states of the group at one step, ``[G, N, C]``.
        anchor: the anchor under the weights being trained, ``[N, C]``.
        anchor_old: the anchor under the weights that rolled out, ``[N, C]``.
        weights: the metric's W, ``[N, C]``.

    Returns:
        ``[G]``, the dtype of the states.

    Raises:
        ValueError: on shapes that do not fit together.
    """
    _check(candidates, anchor, weights)
    if anchor_old.shape != anchor.shape:
        raise ValueError(
            f"anchor_old has shape {list(anchor_old.shape)} and anchor {list(anchor.shape)}, expected equal: "
            "both are the state of the same anchors at the same steps"
        )
    anchor_old = anchor_old.detach()
    log_old = log_policy(candidates, anchor_old, weights)
    # D is weighted before candidates come in, so that the large product is formed once.
    pull = (anchor - anchor_old) * weights.to(anchor.dtype)
    scores = (pull.unsqueeze(-3) * (candidates - anchor_old.unsqueeze(-3))).sum(dim=(-2, -1))
    near = scores.detach().abs().amax(dim=-1, keepdim=True) <= _STABLE_UP_TO
    # expm1 sees only scores it can take: from a branch that `where` drops, inf * 0 would still put NaN in the gradient.
    near_scores = torch.where(near, scores, 0.0)
    log_mean = torch.where(
        near,
        torch.log1p((log_old.exp() * torch.expm1(near_scores)).sum(dim=-1, keepdim=True)),
        torch.logsumexp(log_old + scores, dim=-1, keepdim=True),
    )
    return scores - log_mean


def sample_anchors(group_size: int, count: int, seed: int) -> list[int]:
    """Draw the candidates that serve as anchors: uniform, without replacement, never the reference (candidate 0).

    The draw is a function of the seed alone, so any worker repeats it: the anchors are those candidates whose digest,
    of the seed and of their number, is smallest.

    Args:
        group_size: G, candidates in the group, the reference included; at least 2.
        count: B, anchors to draw, from 1 to G - 1.
        seed: any integer, every digit of which counts.

    Returns:
        `count` different indices in 1..G-1, ascending.

    Raises:
        ValueError: on a group without a perturbed candidate, or a count it cannot serve.
    """
    if group_size < 2:
        raise ValueError(f"group_size is {group_size}, expected at least 2: the reference itself is never an anchor")
    if not 1 <= count <= group_size - 1:
        raise ValueError(
            f"count is {count}, expected 1 to {group_size - 1} anchors for group_size {group_size}: "
            "lower the number of anchors or enlarge the group"
        )

    def rank(candidate: int) -> bytes:
        return hashlib.blake2b(f"anchor:{seed}:{candidate}".encode()).digest()

    return sorted(sorted(range(1, group_size), key=rank)[:count])


def _check(candidates: Tensor, anchor: Tensor, weights: Tensor) -> None:
    if candidates.dim() < 3 or candidates.shape[-2:] != weights.shape:
        raise ValueError(
            f"candidates has shape {list(candidates.shape)}, expected [G, {', '.join(map(str, weights.shape))}] "
            "as the weights say: pass the whole group's states at one step"
        )
    if anchor.dim() < 2 or anchor.shape[-2:] != weights.shape:
        raise ValueError(
            f"anchor has shape {list(anchor.shape)}, expected {list(weights.shape)} as the weights say: "
            "pass the anchor's state at the same step"
        )
