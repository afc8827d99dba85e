"""The token mask, checked once for everyone who takes one."""

from collections.abc import Sequence

import torch
from torch import Tensor


def as_boolean(mask: Tensor, shape: Sequence[int], name: str = "mask") -> Tensor:
    """Return a token mask as booleans, refusing anything that is not yes or no for every token.

    Reads the values of a non-boolean mask, hence waits for its device.

    Args:
        mask: boolean, or any other dtype holding only 0 and 1.
        shape: what the mask's shape has to be.
        name: the argument as the caller's caller knows it, for the error message.

    Returns:
        A boolean tensor of that shape.

    Raises:
        ValueError: on another shape, or when a value is neither 0 nor 1.
    """
    if mask.shape != torch.Size(shape):
        raise ValueError(f"{name} has shape {list(mask.shape)}, expected {list(shape)}: one entry a token")
    if mask.dtype == torch.bool:
        return mask
    inside = mask == 1
    strange = mask[~(inside | (mask == 0))]
    if strange.numel():
        raise ValueError(f"{name} holds {strange[0].item()}, expected 0 and 1 only: threshold it first")
    return inside
