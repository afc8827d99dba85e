"""Rounding to a narrow format that keeps what is smaller than the format's grid, in the mean."""

import math

import torch
from torch import Tensor

from rc_grpo.seeds import uniform

FLOAT8 = torch.float8_e4m3fn
"""The narrow format of rollouts: 3 bits behind the first one, at most 448."""


def round_stochastically(x: Tensor, dtype: torch.dtype, seed: int) -> Tensor:
    """Round to one of the two neighbours in ``dtype``, to the upper one as often as ``x`` is close to it.

    A LoRA's first updates are far below the spacing of bfloat16 numbers (let alone float8): rounded to the nearest,
    base weight plus LoRA is the base weight again, and a rollout under the new policy is one under the old. Rounded
    this way the expected weight is exact, and what is already on the grid stays what it is.

    Args:
        x: float32.
        dtype: a format of fewer bits, such as ``torch.bfloat16`` or ``torch.float8_e4m3fn``; float32 gives `x` back.
        seed: from 0 to 2**64 - 1; the same one gives the same bits on devices of one kind.

    Returns:
        Shape of `x`, in ``dtype``; beyond its range, its largest number.
    """
    if dtype == x.dtype:
        return x
    info = torch.finfo(dtype)
    mantissa_bits, smallest = round(-math.log2(info.eps)), round(math.log2(info.smallest_normal))
    exponent = (torch.frexp(x).exponent - 1).clamp(min=smallest)
    # Powers of two are made of their bits, because a power function is exact on no device for sure.
    spacing = ((exponent - mantissa_bits + 127).clamp(min=1) << 23).view(torch.float32)
    units = x / spacing
    lower = units.floor()
    up = _uniform(x, seed) < units - lower
    return ((lower + up) * spacing).clamp(info.min, info.max).to(dtype)


def _uniform(like: Tensor, seed: int) -> Tensor:
    if not like.is_cuda:
        return uniform(seed, *like.shape).to(like.device)
    # Billions of weights are too many to draw on the CPU, and CUDA's own generator is a Philox with a key of 64 bits.
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.rand(like.shape, device=like.device, generator=generator)
