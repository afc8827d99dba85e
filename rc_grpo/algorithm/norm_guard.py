"""How far reinforcement inflates velocities, and a penalty on it (NormGuard, arXiv 2606.27771).

Post-training makes the velocity's norm grow by 5 to 15 %, and quality falls with it where the reward does not look. The
norm is compared with the base model's, at the same state, apart inside and outside the region to edit.

Left out: nothing of the penalty; that regions are held to it one by one is ours.
"""

import torch
from torch import Tensor


def norm_ratios(velocity: Tensor, base: Tensor, mask: Tensor) -> Tensor:
    """Return ``|v| / |v_base|`` inside and outside the mask, ``[..., 2]``; 1 in a region of no size.

    Args:
        velocity: of the policy, ``[..., N, C]``.
        base: of the base model at the same states.
        mask: ``[N]`` bool, the region to edit.
    """
    inside = mask[:, None].to(velocity.dtype)
    ratios = []
    for region in (inside, 1.0 - inside):
        ours, theirs = ((field * region).square().sum(dim=(-2, -1)) for field in (velocity, base))
        ratios.append(torch.where(theirs > 0, ours / theirs.clamp(min=torch.finfo(theirs.dtype).tiny), 1.0).sqrt())
    return torch.stack(ratios, dim=-1)


def excess(ratios: Tensor) -> Tensor:
    """Return the hinge penalty, the mean over regions of ``max(0, |v| / |v_base| - 1)^2``: 0 for no inflation."""
    return (ratios - 1.0).clamp(min=0.0).square().mean(dim=-1)
