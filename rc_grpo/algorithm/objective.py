"""The objective: pull anchors towards candidates that did better than their group, within a trust region.

Throughout, a NaN advantage means *this candidate is not in the loss*: its score failed. It is masked before any
arithmetic, so that no NaN reaches a gradient.
"""

import math

import torch
from torch import Tensor

from rc_grpo.algorithm.surrogate import log_policy


def clipped_surrogate(advantages: Tensor, log_ratio: Tensor, clip: float) -> Tensor:
    """Return the clipped policy-gradient surrogate, to be maximised (Eq. 5).

    ::

        J = mean of min( A_i rho_i, A_i clip(rho_i, 1 - e, 1 + e) )

    over all leading dimensions and all candidates that count, uniformly (not weighted by the old policy).

    Args:
        advantages: A, ``[G]`` or anything that broadcasts against `log_ratio`; NaN leaves a candidate out.
        log_ratio: log rho, ``[..., G]``, as `surrogate.log_ratio` gives it.
        clip: e, in (0, 1). The default used elsewhere, 1e-4, is our reading.

    Returns:
        A scalar in the dtype of `log_ratio`; 0 when no candidate counts, and still part of the graph.

    Raises:
        ValueError: on shapes that do not broadcast or a clip outside (0, 1).
    """
    advantages, valid = _spread(advantages, log_ratio)
    stopped = _stopped_by_clip(advantages, log_ratio, clip)
    bound = 1.0 + clip * advantages.sign()
    # exp sees only ratios that carry gradient: past the clip one may overflow, and inf * 0 would be NaN in the
    # gradient.
    live = (advantages != 0) & ~stopped
    ratio = torch.where(live, log_ratio, 0.0).exp()
    contributions = advantages * torch.where(stopped, bound, ratio)
    return contributions.sum() / valid.sum().clamp(min=1)


def clip_fraction(advantages: Tensor, log_ratio: Tensor, clip: float) -> Tensor:
    """Return the share of the candidates that count whose gradient the clip has stopped.

    From the second step on a rollout, 5 to 30 % is a clip range that does its work (our reading).

    Args:
        advantages: as in `clipped_surrogate`.
        log_ratio: as in `clipped_surrogate`.
        clip: as in `clipped_surrogate`.

    Returns:
        A scalar in [0, 1] in the dtype of `log_ratio`, without gradient; 0 when no candidate counts.

    Raises:
        ValueError: as `clipped_surrogate` does.
    """
    advantages, valid = _spread(advantages, log_ratio)
    stopped = _stopped_by_clip(advantages, log_ratio, clip)
    return stopped.sum().to(log_ratio.dtype) / valid.sum().clamp(min=1)


def policy_kl(log_policy_old: Tensor, log_ratio: Tensor) -> Tensor:
    """Return the divergence of the surrogate policy from its old self, a cost (Eq. 5's second term).

    ::

        KL(pi_old || pi_theta) = - sum_i pi_old(i) log rho_i

    over all candidates: one whose score failed still takes part in the policy. Averaged over leading dimensions.

    Args:
        log_policy_old: ``[..., G]``, `surrogate.log_policy` at the old anchor; detached here.
        log_ratio: log rho, ``[..., G]``, as `surrogate.log_ratio` gives it.

    Returns:
        A scalar in the dtype of `log_ratio`, exactly 0 at the old policy.

    Raises:
        ValueError: on different shapes.
    """
    if log_policy_old.shape != log_ratio.shape:
        raise ValueError(
            f"log_policy_old has shape {list(log_policy_old.shape)} and log_ratio {list(log_ratio.shape)}, expected "
            "equal: both are [..., G] for the same anchors and steps"
        )
    return -(log_policy_old.detach().exp() * log_ratio).sum(dim=-1).mean()


def on_policy_pull(candidates: Tensor, advantages: Tensor, weights: Tensor, *, anchor: Tensor | None = None) -> Tensor:
    """Return the gradient of one anchor's surrogate at one step, at the old policy, in closed form.

    At theta_old the ratio is 1, nothing is clipped and ``d log rho_i / dxbar = W (x_i - sum_j pi_old(j) x_j)``, so
    that over the n candidates that count::

        dJ/dxbar = W/n sum_i A_i (x_i - sum_j pi_old(j) x_j)
                 = W/n sum_i A_i x_i    if sum_i A_i = 0

    The last form is the default. It does not know the anchor: every anchor of the group gets the same pull. Advantages
    of `rewards.group_advantages` are centred unless their clip bites; for others, pass the anchor.

    Args:
        candidates: states of the group at one step, ``[..., G, N, C]``.
        advantages: ``[G]``, NaN leaves a candidate out; at least one counts.
        weights: the metric's W, ``[N, C]``.
        anchor: the anchor's state ``[..., N, C]``, needed when the advantages are not centred.

    Returns:
        ``[..., N, C]``, dtype of the candidates. The mean over groups, anchors and steps of Eq. 5 is the caller's
        factor.

    Raises:
        ValueError: on shapes that do not fit together, or when no candidate counts.
    """
    if candidates.dim() < 3 or candidates.shape[-2:] != weights.shape:
        raise ValueError(
            f"candidates has shape {list(candidates.shape)} and weights {list(weights.shape)}, expected [..., G, N, C] "
            "and [N, C]: pass the whole group's states at one step"
        )
    if advantages.shape != candidates.shape[-3:-2]:
        raise ValueError(
            f"advantages has shape {list(advantages.shape)}, expected [{candidates.shape[-3]}]: one a candidate"
        )
    valid = ~advantages.isnan()
    count = int(valid.sum())
    if count == 0:
        raise ValueError("advantages are all NaN: skip a group of which every score failed")
    known = torch.where(valid, advantages, 0.0)
    # Differences to the reference are small and the states are not; summed this way, float32 loses nothing to
    # cancellation.
    reference = candidates[..., :1, :, :]
    pull = torch.einsum("g,...gnc->...nc", known.to(candidates.dtype), candidates - reference)
    origin = reference.squeeze(-3)
    if anchor is not None:
        policy = log_policy(candidates, anchor, weights).exp()
        origin = origin - torch.einsum("...g,...gnc->...nc", policy, candidates)
    pull = pull + known.sum().to(candidates.dtype) * origin
    return weights.to(candidates.dtype) * pull / count


def _spread(advantages: Tensor, log_ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Broadcast advantages over the ratios, with 0 for candidates out of the loss, and a mask of the others."""
    try:
        advantages = advantages.to(log_ratio.dtype).broadcast_to(log_ratio.shape)
    except RuntimeError as error:
        raise ValueError(
            f"advantages has shape {list(advantages.shape)} and log_ratio {list(log_ratio.shape)}, expected [G] and "
            "[..., G]: one advantage a candidate"
        ) from error
    valid = ~advantages.isnan()
    return torch.where(valid, advantages, 0.0), valid


def _stopped_by_clip(advantages: Tensor, log_ratio: Tensor, clip: float) -> Tensor:
    """Mark candidates past the clip in the direction their advantage wants, where the minimum is constant."""
    if not 0.0 < clip < 1.0:
        raise ValueError(f"clip is {clip}, expected a number in (0, 1): it bounds the ratio to [1 - clip, 1 + clip]")
    # Compared as logarithms: near 1 a float32 ratio has steps of 6e-8, near 0 its logarithm has none to speak of.
    return torch.where(advantages > 0, log_ratio > math.log1p(clip), (advantages < 0) & (log_ratio < math.log1p(-clip)))
