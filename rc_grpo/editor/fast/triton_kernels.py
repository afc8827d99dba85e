"""The Triton side of `rc_grpo.editor.fast.kernels`; imported where there is a GPU."""

import math
from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from rc_grpo.editor.fast.rounding import FLOAT8

LARGEST = tl.constexpr(448.0)
TINY = tl.constexpr(1.1754943508222875e-38)
TOKENS_AT_ONCE = 64
"""Of a head, in a program."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _turned(x, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    real, imaginary = tl.split(tl.reshape(x, (ROWS, WIDTH // 2, 2)))
    return tl.reshape(tl.join(-imaginary, real), (ROWS, WIDTH))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _inverse_norm(x, eps, WIDTH: tl.constexpr):
    return (1.0 / tl.sqrt(tl.sum(x * x, axis=1) / WIDTH + eps))[:, None]


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _norm_and_rotate(
    x,
    weight,
    cosine,
    sine,
    out,
    tokens,
    offset,
    all_tokens,
    apart,
    eps,
    HEADS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = offset + row % tokens
    joint = row // tokens * all_tokens + token
    x += row * apart
    columns = tl.arange(0, WIDTH)[None, :]
    angle = token * WIDTH + columns
    cosines, sines = tl.load(cosine + angle), tl.load(sine + angle)
    weights = tl.load(weight + columns).to(tl.float32)
    for first in tl.static_range(0, HEADS, AT_ONCE):
        heads = first + tl.arange(0, AT_ONCE)[:, None]
        inside = heads < HEADS
        value = tl.load(x + heads * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
        # Rounded in between, as the norm's own output is.
        normed = (value * _inverse_norm(value, eps, WIDTH) * weights).to(out.dtype.element_ty).to(tl.float32)
        rotated = (normed * cosines + _turned(normed, AT_ONCE, WIDTH) * sines).to(out.dtype.element_ty)
        tl.store(out + (joint * HEADS + heads) * WIDTH + columns, rotated, mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _norm_and_rotate_backward(
    gradient,
    x,
    weight,
    cosine,
    sine,
    out,
    tokens,
    offset,
    all_tokens,
    apart,
    eps,
    HEADS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    WIDTH: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    token = offset + row % tokens
    joint = row // tokens * all_tokens + token
    x += row * apart
    columns = tl.arange(0, WIDTH)[None, :]
    angle = token * WIDTH + columns
    cosines, sines = tl.load(cosine + angle), tl.load(sine + angle)
    weights = tl.load(weight + columns).to(tl.float32)
    for first in tl.static_range(0, HEADS, AT_ONCE):
        heads = first + tl.arange(0, AT_ONCE)[:, None]
        inside = heads < HEADS
        value = tl.load(x + heads * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
        pull = tl.load(gradient + (joint * HEADS + heads) * WIDTH + columns, mask=inside, other=0.0).to(tl.float32)
        inverse = _inverse_norm(value, eps, WIDTH)
        normed = value * inverse
        pull = (pull * cosines - _turned(pull * sines, AT_ONCE, WIDTH)) * weights
        along = tl.sum(pull * normed, axis=1) / WIDTH
        found = inverse * (pull - normed * along[:, None])
        tl.store(out + (row * HEADS + heads) * WIDTH + columns, found.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _activated(x, width, part, ACTIVATION: tl.constexpr, PART: tl.constexpr):
    columns = part * PART + tl.arange(0, PART)
    value = tl.load(x + columns, mask=columns < width, other=0.0).to(tl.float32)
    if ACTIVATION == "gelu":
        value = value * tl.sigmoid(1.5957691216057308 * value * (1.0 + 0.044715 * value * value))
    if ACTIVATION == "swiglu":
        up = tl.load(x + width + columns, mask=columns < width, other=0.0).to(tl.float32)
        value = value * tl.sigmoid(value) * up
    return value


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _store_part(out, value, width, part, PART: tl.constexpr):
    columns = part * PART + tl.arange(0, PART)
    tl.store(out + columns, value.to(out.dtype.element_ty), mask=columns < width)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _quantise_rows(x, out, scales, width, apart, ACTIVATION: tl.constexpr, PART: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x, out = x + row * apart, out + row * width
    # In thirds: widths here are three times a power of two, and a block of Triton's is a power of two.
    a = _activated(x, width, 0, ACTIVATION, PART)
    b = _activated(x, width, 1, ACTIVATION, PART)
    c = _activated(x, width, 2, ACTIVATION, PART)
    largest = tl.max(tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), tl.abs(c)), axis=0)
    scale = tl.maximum(largest / LARGEST, TINY)
    inverse = 1.0 / scale
    _store_part(out, a * inverse, width, 0, PART)
    _store_part(out, b * inverse, width, 1, PART)
    _store_part(out, c * inverse, width, 2, PART)
    tl.store(scales + row, scale)


@triton.jit(do_not_specialize=["seed"])  # type: ignore[untyped-decorator, unused-ignore]
def _merge(
    pristine,
    b,
    a,
    unit,
    out,
    rows,
    columns,
    factor,
    seed,
    RANK: tl.constexpr,
    BITS: tl.constexpr,
    SMALLEST: tl.constexpr,
    LARGEST_OF_ALL: tl.constexpr,
    HAS_UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PART: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    change = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in tl.static_range(0, RANK, PART):
        across, down = first + tl.arange(0, PART)[None, :], first + tl.arange(0, PART)[:, None]
        left = tl.load(b + row * RANK + across, mask=(row < rows) & (across < RANK), other=0.0).to(tl.float32)
        right = tl.load(a + down * columns + column, mask=(down < RANK) & (column < columns), other=0.0).to(tl.float32)
        change += tl.dot(left, right, input_precision="ieee")
    change *= factor
    if HAS_UNIT:
        change /= tl.load(unit + row, mask=row < rows, other=1.0)
    inside = (row < rows) & (column < columns)
    at = row * columns + column
    value = tl.load(pristine + at, mask=inside, other=0.0).to(tl.float32) + change
    exponent = tl.maximum(((value.to(tl.int32, bitcast=True) >> 23) & 255) - 127, SMALLEST)
    spacing = (tl.maximum(exponent - BITS + 127, 1) << 23).to(tl.float32, bitcast=True)
    units = value / spacing
    lower = tl.floor(units)
    upper = lower + tl.where(tl.rand(seed, at) < units - lower, 1.0, 0.0)
    rounded = tl.minimum(tl.maximum(upper * spacing, -LARGEST_OF_ALL), LARGEST_OF_ALL)
    tl.store(out + at, rounded.to(out.dtype.element_ty), mask=inside)


def merge(out: Tensor, pristine: Tensor, b: Tensor, a: Tensor, factor: float, unit: Tensor | None, seed: int) -> None:
    """Write ``pristine + factor * b a / unit``, rounded stochastically, in one trip to memory.

    Args:
        out: ``[out, in]``, of any float narrower than float32.
        pristine: the same.
        b: ``[out, rank]``.
        a: ``[rank, in]``.
        factor: of the change.
        unit: what 1 in a row of the weights stands for, ``[out, 1]`` float32; None: 1.
        seed: as of `rc_grpo.editor.fast.rounding.round_stochastically`.
    """
    (rows, columns), rank, info = out.shape, a.shape[0], torch.finfo(out.dtype)
    bits, smallest = round(-math.log2(info.eps)), round(math.log2(info.smallest_normal))
    grid = (triton.cdiv(rows, 64), triton.cdiv(columns, 64))
    tensors = pristine, b.contiguous(), a.contiguous(), pristine if unit is None else unit, out
    shape = rows, columns, factor, seed & (2**63 - 1)
    _merge[grid](*tensors, *shape, rank, bits, smallest, info.max, unit is not None, 64, 64, 16, num_warps=4)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _tile_of_head(x, tokens, heads, of_image, of_token, of_head, WIDTH: tl.constexpr, TOKENS: tl.constexpr):
    image, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)[:, None]
    at = image.to(tl.int64) * of_image + token * of_token + head * of_head + tl.arange(0, WIDTH)[None, :]
    return tl.load(x + at, mask=token < tokens, other=0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _largest_of_heads(
    x, largest, tokens, heads, of_image, of_token, of_head, WIDTH: tl.constexpr, TOKENS: tl.constexpr
):
    tile = _tile_of_head(x, tokens, heads, of_image, of_token, of_head, WIDTH, TOKENS)
    tl.atomic_max(largest + tl.program_id(0), tl.max(tl.max(tl.abs(tile), axis=1), axis=0))


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _quantise_heads(
    x, largest, out, scales, tokens, heads, of_image, of_token, of_head, WIDTH: tl.constexpr, TOKENS: tl.constexpr
):
    tile = _tile_of_head(x, tokens, heads, of_image, of_token, of_head, WIDTH, TOKENS)
    scale = tl.maximum(tl.load(largest + tl.program_id(0)) / LARGEST, TINY)
    image, head = tl.program_id(0) // heads, tl.program_id(0) % heads
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)[:, None]
    at = ((image.to(tl.int64) * tokens + token) * heads + head) * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(out + at, (tile * (1.0 / scale)).to(out.dtype.element_ty), mask=token < tokens)
    if tl.program_id(1) == 0:
        tl.store(scales + tl.program_id(0), scale)


def quantise_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """See `rc_grpo.editor.fast.fp8_attention.quantise_heads`."""
    x = x if x.stride(-1) == 1 else x.contiguous()
    images, tokens, heads, width = x.shape
    largest = torch.zeros(images, heads, device=x.device, dtype=torch.float32)
    out, scales = torch.empty(x.shape, device=x.device, dtype=FLOAT8), torch.empty_like(largest)
    grid = images * heads, triton.cdiv(tokens, TOKENS_AT_ONCE)
    shape = tokens, heads, *x.stride()[:3], width, TOKENS_AT_ONCE
    _largest_of_heads[grid](x, largest, *shape, num_warps=4)
    _quantise_heads[grid](x, largest, out, scales, *shape, num_warps=4)
    return out, scales


def norm_and_rotate(
    streams: Sequence[Tensor], weights: Sequence[Tensor], eps: Sequence[float], cosine: Tensor, sine: Tensor
) -> Tensor:
    """See `rc_grpo.editor.fast.kernels.norm_and_rotate`."""
    batch, _, heads, width = streams[0].shape
    out = streams[0].new_empty(batch, sum(x.shape[1] for x in streams), heads, width)
    rotary = cosine.contiguous(), sine.contiguous()
    for (rows, shape), weight in zip(_in_turn(streams, eps), weights, strict=True):
        _norm_and_rotate[(batch * shape[0],)](rows, weight, *rotary, out, *shape, num_warps=4)
    return out


def norm_and_rotate_backward(
    gradient: Tensor,
    streams: Sequence[Tensor],
    weights: Sequence[Tensor],
    eps: Sequence[float],
    cosine: Tensor,
    sine: Tensor,
) -> list[Tensor]:
    """See `rc_grpo.editor.fast.kernels.norm_and_rotate_backward`."""
    gradient, rotary, batch = gradient.contiguous(), (cosine.contiguous(), sine.contiguous()), len(gradient)
    found = [torch.empty(x.shape, device=x.device, dtype=x.dtype) for x in streams]
    for (rows, shape), weight, out in zip(_in_turn(streams, eps), weights, found, strict=True):
        _norm_and_rotate_backward[(batch * shape[0],)](gradient, rows, weight, *rotary, out, *shape, num_warps=4)
    return found


def _in_turn(streams: Sequence[Tensor], eps: Sequence[float]) -> Iterator[tuple[Tensor, tuple[int | float, ...]]]:
    """Yield each stream's rows, and what the kernels of norm and rotation want to know of it after their tensors."""
    total, offset = sum(x.shape[1] for x in streams), 0
    for x, own in zip(streams, eps, strict=True):
        _, tokens, heads, width = x.shape
        rows, apart = _rows(x.flatten(-2))
        yield rows, (tokens, offset, total, apart, own, heads, min(8, triton.next_power_of_2(heads)), width)
        offset += tokens


def quantise_rows(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """See `rc_grpo.editor.fast.kernels.quantise_rows`."""
    count, width = x.shape
    if activation == "swiglu":
        width //= 2
    out = torch.empty(count, width, device=x.device, dtype=FLOAT8)
    scales = torch.empty(count, 1, device=x.device, dtype=torch.float32)
    part = triton.next_power_of_2(triton.cdiv(width, 3))
    rows, apart = _rows(x)
    _quantise_rows[(count,)](rows, out, scales, width, apart, activation, part, num_warps=min(16, max(1, part // 256)))
    return out, scales


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """Return ``[..., width]`` with rows evenly far apart, as part of a wider projection has them, and how far."""
    apart = x.stride(-2)
    even = x.stride(-1) == 1 and (x.dim() == 2 or x.shape[0] == 1 or x.stride(0) == x.shape[1] * apart)
    return (x, apart) if even else (x.contiguous(), x.shape[-1])
