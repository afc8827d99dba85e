"""What sits between the matrix products of a FLUX block, fused: for rollouts, without gradients.

Three operators that a compiled graph takes as they are. Each is a Triton or cuBLASLt kernel on a GPU and the plain
expression elsewhere, which is also what it is tested against.
"""

import torch
from torch import Tensor
from torch.nn import functional

FLOAT8 = torch.float8_e4m3fn


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
def norm_and_rotate(x: Tensor, weight: Tensor, eps: float, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return queries or keys after RMS norm and rotary embedding.

    Args:
        x: ``[B, S, H, D]``, contiguous.
        weight: ``[D]`` of the norm.
        eps: of the norm.
        cosine: ``[S, D]`` float32, each value twice in a row.
        sine: the same.
    """
    if not x.is_cuda:
        normed = functional.rms_norm(x, (x.shape[-1],), weight, eps).float()
        real, imaginary = normed.reshape(*normed.shape[:-1], -1, 2).unbind(-1)
        turned = torch.stack([-imaginary, real], dim=-1).flatten(-2)
        return (normed * cosine[None, :, None] + turned * sine[None, :, None]).to(x.dtype)
    from rc_grpo.editor import triton_kernels

    return triton_kernels.norm_and_rotate(x, weight, eps, cosine, sine)


@norm_and_rotate.register_fake
def _(x: Tensor, weight: Tensor, eps: float, cosine: Tensor, sine: Tensor) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("rc_grpo::quantise_rows", mutates_args=())
def quantise_rows(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """Scale every row by its largest entry and round it to float8, after a GELU (tanh form) if asked for.

    Args:
        x: ``[rows, width]``, contiguous.
        gelu: apply it first.

    Returns:
        ``[rows, width]`` e4m3, and what 1 in it stands for, ``[rows, 1]`` float32.
    """
    if not x.is_cuda:
        activated = functional.gelu(x, approximate="tanh") if gelu else x
        scale = row_scale(activated, torch.finfo(FLOAT8).max)
        return (activated.float() / scale).to(FLOAT8), scale
    from rc_grpo.editor import triton_kernels

    return triton_kernels.quantise_rows(x, gelu)


@quantise_rows.register_fake
def _(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=FLOAT8), x.new_empty(x.shape[0], 1, dtype=torch.float32)


def row_scale(rows: Tensor, largest: float) -> Tensor:
    """Return what 1 in the quantised rows stands for, ``[rows, 1]`` float32: ``largest`` is their largest entry."""
    return (rows.float().abs().amax(dim=-1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)
