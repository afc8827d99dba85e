"""The region-normalised masked metric: how far two states are apart, each region on its own scale.

The mean over a region (not the sum) keeps distances of order 0.1 whatever the image size, so that the softmax over
candidates stays soft. With a summed distance at 512x512 it is one-hot, and float32 cannot resolve the ratio.
"""

import torch
from torch import Tensor

from rc_grpo.algorithm._mask import as_boolean


def region_weights(
    mask: Tensor,
    channels: int,
    tau_edit: float = 0.9,
    tau_base: float = 1.1,
    power: int = 2,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the diagonal W of the metric: a region's temperature over the region's size.

    ::

        W = M / (tau_edit^q n_E) + (1 - M) / (tau_base^q n_B),    n_E = |m| C,    n_B = (N - |m|) C

    Our reading: it stands in for the paper's Eq. B.3, whose supplement is not public. The temperatures are the
    paper's; a larger one means less weight, as its section 5.3 and Table 3 have it. A region without tokens
    contributes nothing.

    Args:
        mask: token mask ``[N]``, boolean or 0/1; true inside the region to edit. All-false and all-true are both legal
            here.
        channels: C, channels a token.
        tau_edit: temperature inside the mask, above 0.
        tau_base: temperature outside the mask, above 0.
        power: q, the temperatures' exponent: 1 or 2.
        dtype: of the result; weights are computed in double precision and rounded once.

    Returns:
        ``[N, C]`` on the mask's device.

    Raises:
        ValueError: on a mask that is not binary, one-dimensional and non-empty, channels < 1, a temperature that is not
            positive, or another power.
    """
    if mask.dim() != 1 or mask.numel() == 0:
        raise ValueError(f"mask has shape {list(mask.shape)}, expected [N] with N >= 1: one entry a token")
    if channels < 1:
        raise ValueError(f"channels is {channels}, expected at least 1: it is the last dimension of the packed latents")
    for name, tau in (("tau_edit", tau_edit), ("tau_base", tau_base)):
        if not tau > 0.0:
            raise ValueError(f"{name} is {tau}, expected a number above 0: it divides the distance")
    if power not in (1, 2):
        raise ValueError(
            f"power is {power}, expected 1 or 2: the two readings of how a temperature enters the distance"
        )
    inside = as_boolean(mask, mask.shape)
    tokens_inside = int(inside.sum())
    tokens_outside = inside.numel() - tokens_inside
    of_edit = 1.0 / (tau_edit**power * tokens_inside * channels) if tokens_inside else 0.0
    of_base = 1.0 / (tau_base**power * tokens_outside * channels) if tokens_outside else 0.0
    per_token = torch.tensor([of_base, of_edit], dtype=dtype, device=mask.device)[inside.long()]
    return per_token.unsqueeze(-1).repeat(1, channels)


def masked_distance(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Return the squared distance ``d2(x, y) = <x - y, W (x - y)>``.

    Our reading, see `region_weights`.

    Args:
        x: states ``[..., N, C]``, floating point.
        y: states ``[..., N, C]``; leading dimensions broadcast against those of `x`.
        weights: W, ``[N, C]``; taken in the dtype of the states.

    Returns:
        ``[...]``, the broadcast leading dimensions, in the dtype of the states.

    Raises:
        ValueError: when the last two dimensions differ from those of the weights.
    """
    for name, state in (("x", x), ("y", y)):
        if state.shape[-2:] != weights.shape:
            raise ValueError(
                f"{name} has shape {list(state.shape)} and weights {list(weights.shape)}, expected [..., N, C] and "
                "[N, C]: build the weights for this token grid with region_weights"
            )
    difference = x - y
    return (difference.square() * weights.to(difference.dtype)).sum(dim=(-2, -1))
