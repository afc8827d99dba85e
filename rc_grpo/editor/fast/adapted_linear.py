"""A frozen projection with a LoRA on it whose two products end in one place.

Apart the LoRA's part is written, read again and added to the projection's on one more trip to memory, and for a rank of
some tens that trip is all its product takes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


@torch.library.custom_op("rc_grpo::adapted_linear", mutates_args=())
def adapted_linear(x: Tensor, weight: Tensor, bias: Tensor | None, inner: Tensor, factor: Tensor) -> Tensor:
    """Return ``x W^T + b + inner F^T``, ``[..., out]``; the frozen ``W`` and ``b`` have no gradient.

    The projection is rounded before the LoRA's part is added, as PEFT has it; that part itself is not.

    Args:
        x: ``[..., in]``, of the dtype of all others.
        weight: ``[out, in]``.
        bias: ``[out]``.
        inner: ``[..., rank]``, what a LoRA's first factor made of ``x``; its rows may be parts of wider ones.
        factor: ``[out, rank]``, its second one, scaled.

    Raises:
        ValueError: ``weight`` or ``bias`` wants a gradient.
    """
    projected = linear(x, weight, bias)
    projected.view(-1, len(weight)).addmm_(inner.reshape(-1, inner.shape[-1]), factor.t())
    return projected


@adapted_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, inner: Tensor, factor: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], len(weight))


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor], output: Tensor) -> None:
    _, weight, bias, inner, factor = inputs
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("adapted_linear has no gradient of the projection's own weights: they are frozen")
    ctx.save_for_backward(weight, inner, factor)


def _pull_back(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor]:
    weight, inner, factor = ctx.saved_tensors
    of_factor = gradient.flatten(0, -2).t() @ inner.flatten(0, -2)
    return gradient @ weight if ctx.needs_input_grad[0] else None, None, None, gradient @ factor, of_factor


adapted_linear.register_autograd(_pull_back, setup_context=_keep)
