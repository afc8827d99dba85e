"""The Triton side of `rc_grpo.editor.kernels`; imported where there is a GPU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from rc_grpo.editor.kernels import FLOAT8

LARGEST = tl.constexpr(448.0)
TINY = tl.constexpr(1.1754943508222875e-38)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _norm_and_rotate(
    x, weight, cosine, sine, out, tokens, eps, HEADS: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    heads = tl.arange(0, PADDED)[:, None]
    columns = tl.arange(0, WIDTH)[None, :]
    at = row * HEADS * WIDTH + heads * WIDTH + columns
    inside = heads < HEADS
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / WIDTH + eps)
    scaled = value * inverse[:, None] * tl.load(weight + columns).to(tl.float32)
    # Rounded in between, as the norm's own output is.
    normed = scaled.to(out.dtype.element_ty).to(tl.float32)
    real, imaginary = tl.split(tl.reshape(normed, (PADDED, WIDTH // 2, 2)))
    turned = tl.reshape(tl.join(-imaginary, real), (PADDED, WIDTH))
    angle = (row % tokens) * WIDTH + columns
    rotated = normed * tl.load(cosine + angle) + turned * tl.load(sine + angle)
    tl.store(out + at, rotated.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _quantise_rows(x, out, scales, width, GELU: tl.constexpr, PADDED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, PADDED)
    inside = columns < width
    value = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        value = value * tl.sigmoid(2.0 * inner)
        value = value.to(x.dtype.element_ty).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), axis=0) / LARGEST, TINY)
    quantised = tl.minimum(tl.maximum(value / scale, -LARGEST), LARGEST)
    tl.store(out + row * width + columns, quantised.to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


def norm_and_rotate(x: Tensor, weight: Tensor, eps: float, cosine: Tensor, sine: Tensor) -> Tensor:
    """See `rc_grpo.editor.kernels.norm_and_rotate`."""
    batch, tokens, heads, width = x.shape
    x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
    padded = triton.next_power_of_2(heads)
    _norm_and_rotate[(batch * tokens,)](
        x, weight, cosine.contiguous(), sine.contiguous(), out, tokens, eps, heads, padded, width, num_warps=4
    )
    return out


def quantise_rows(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """See `rc_grpo.editor.kernels.quantise_rows`."""
    rows, width = x.shape
    out = torch.empty(rows, width, device=x.device, dtype=FLOAT8)
    scales = torch.empty(rows, 1, device=x.device, dtype=torch.float32)
    padded = triton.next_power_of_2(width)
    _quantise_rows[(rows,)](x.contiguous(), out, scales, width, gelu, padded, num_warps=16 if padded > 4096 else 8)
    return out, scales
