"""What sits between the matrix products of a transformer block, fused.

Operators that a compiled graph takes as they are. Each is a Triton or cuBLASLt kernel on a GPU and the plain expression
elsewhere, which is also what it is tested against. `norm_and_rotate` alone has a gradient; the others are for rollouts.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.editor.fast.rounding import FLOAT8

Activation = Literal["none", "gelu", "swiglu"]
"""Ahead of a quantisation: nothing, a GELU (tanh form), or the SiLU of a row's first half times its second."""


@torch.library.custom_op("rc_grpo::gelu_linear", mutates_args=())
def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``gelu(x W^T + b)`` (tanh form), ``[..., in] -> [..., out]``; on a GPU the product's own epilogue."""
    if not x.is_cuda:
        return functional.gelu(functional.linear(x, weight, bias), approximate="tanh")
    rows = torch._addmm_activation(bias, x.reshape(-1, x.shape[-1]), weight.t(), use_gelu=True)
    return rows.reshape(*x.shape[:-1], -1)


@gelu_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op("rc_grpo::norm_and_rotate", mutates_args=())
def norm_and_rotate(
    streams: Sequence[Tensor], weights: Sequence[Tensor], eps: Sequence[float], cosine: Tensor, sine: Tensor
) -> Tensor:
    """Return queries or keys ``[B, S, H, D]`` of all streams one after the other, after RMS norm and rotary embedding.

    Args:
        streams: ``[B, S_i, H, D]``, each token's heads side by side; S is the sum of S_i.
        weights: ``[D]``, of every stream's norm.
        eps: of every stream's norm.
        cosine: ``[S, D]`` float32, each value twice in a row.
        sine: the same.
    """
    if not streams[0].is_cuda:
        normed = torch.cat(
            [
                functional.rms_norm(x, (x.shape[-1],), weight, own)
                for x, weight, own in zip(streams, weights, eps, strict=True)
            ],
            dim=1,
        ).float()
        return (normed * cosine[None, :, None] + _turned(normed) * sine[None, :, None]).to(streams[0].dtype)
    from rc_grpo.editor.fast import triton_kernels

    return triton_kernels.norm_and_rotate(streams, weights, eps, cosine, sine)


@norm_and_rotate.register_fake
def _(
    streams: Sequence[Tensor], weights: Sequence[Tensor], eps: Sequence[float], cosine: Tensor, sine: Tensor
) -> Tensor:
    batch, _, heads, width = streams[0].shape
    return streams[0].new_empty(batch, sum(x.shape[1] for x in streams), heads, width)


@torch.library.custom_op("rc_grpo::norm_and_rotate_backward", mutates_args=())
def norm_and_rotate_backward(
    gradient: Tensor,
    streams: Sequence[Tensor],
    weights: Sequence[Tensor],
    eps: Sequence[float],
    cosine: Tensor,
    sine: Tensor,
) -> list[Tensor]:
    """Return the gradient of every stream, ``[B, S_i, H, D]``, from that of `norm_and_rotate`'s output.

    Norms are computed again: nothing is kept but what went in.
    """
    if gradient.is_cuda:
        from rc_grpo.editor.fast import triton_kernels

        return triton_kernels.norm_and_rotate_backward(gradient, streams, weights, eps, cosine, sine)
    back = gradient * cosine[None, :, None] - _turned(gradient * sine[None, :, None])
    found, parts = [], torch.split(back, [x.shape[1] for x in streams], dim=1)
    for part, x, weight, own in zip(parts, streams, weights, eps, strict=True):
        inverse = (x.float().square().mean(dim=-1, keepdim=True) + own).rsqrt()
        normed, pull = x.float() * inverse, part.float() * weight.float()
        along = (pull * normed).mean(dim=-1, keepdim=True)
        found.append((inverse * (pull - normed * along)).to(x.dtype))
    return found


@norm_and_rotate_backward.register_fake
def _(
    gradient: Tensor,
    streams: Sequence[Tensor],
    weights: Sequence[Tensor],
    eps: Sequence[float],
    cosine: Tensor,
    sine: Tensor,
) -> list[Tensor]:
    return [x.new_empty(x.shape) for x in streams]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    streams, weights, ctx.eps, cosine, sine = inputs
    if any(weight.requires_grad for weight in weights):
        raise ValueError("norm_and_rotate has no gradient of its norms' weights: they are frozen")
    ctx.count = len(streams)
    ctx.save_for_backward(*streams, *weights, cosine, sine)


def _pull_back(ctx: Any, gradient: Tensor) -> tuple[list[Tensor], list[None], None, None, None]:
    *both, cosine, sine = ctx.saved_tensors
    streams, weights = both[: ctx.count], both[ctx.count :]
    found = norm_and_rotate_backward(gradient, streams, weights, ctx.eps, cosine, sine)
    return found, [None] * len(weights), None, None, None


norm_and_rotate.register_autograd(_pull_back, setup_context=_keep)


def _turned(x: Tensor) -> Tensor:
    """Return ``[..., D]``, whose pairs of entries are complex numbers, times i."""
    real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return torch.stack([-imaginary, real], dim=-1).flatten(-2)


@torch.library.custom_op("rc_grpo::quantise_rows", mutates_args=())
def quantise_rows(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Scale every row by its largest entry and round it to float8, after an activation.

    Args:
        x: ``[rows, width]``, a row's entries side by side; for ``swiglu`` ``[rows, 2 width]``.
        activation: an `Activation`.

    Returns:
        ``[rows, width]`` e4m3, and what 1 in it stands for, ``[rows, 1]`` float32.
    """
    if not x.is_cuda:
        activated = activate(x.float(), activation)
        scale = row_scale(activated, torch.finfo(FLOAT8).max)
        return (activated / scale).to(FLOAT8), scale
    from rc_grpo.editor.fast import triton_kernels

    return triton_kernels.quantise_rows(x, activation)


@quantise_rows.register_fake
def _(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    rows, width = x.shape[0], x.shape[1] // 2 if activation == "swiglu" else x.shape[1]
    return x.new_empty(rows, width, dtype=FLOAT8), x.new_empty(rows, 1, dtype=torch.float32)


def activate(x: Tensor, activation: str) -> Tensor:
    """Return what an `Activation` makes of ``[..., width]``; ``swiglu`` halves the width: its gate comes first."""
    if activation == "gelu":
        return functional.gelu(x, approximate="tanh")
    if activation == "swiglu":
        gate, up = x.chunk(2, dim=-1)
        return functional.silu(gate) * up
    return x


def row_scale(rows: Tensor, largest: float) -> Tensor:
    """Return what 1 in the quantised rows stands for, ``[rows, 1]`` float32: ``largest`` is their largest entry."""
    return (rows.float().abs().amax(dim=-1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)
