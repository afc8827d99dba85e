"""FlashAttention 3 where it is there: the forward pass of an attention that trains, with cuDNN's backward pass.

Each is the faster one on a Hopper GPU (`docs/measurements.md`): the package has no backward pass, and what cuDNN's
needs of a forward pass, its output and the logarithm of each row's sum, is what any attention has.
"""

import math
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

PACKAGE = "fa3-fwd"
WIDEST = 128
"""Of a head, for cuDNN's backward pass."""


def is_better() -> bool:
    """Whether attention that trains is better done here than by PyTorch's choice, on this process's GPU.

    Not where bits are to repeat: that is PyTorch's to promise.
    """
    return (
        find_spec("fa3_fwd_interface") is not None
        and torch.cuda.is_available()
        and torch.cuda.get_device_capability() >= (9, 0)
        and not torch.are_deterministic_algorithms_enabled()
    )


def takes(query: Tensor, key: Tensor) -> bool:
    """Whether queries ``[B, Q, H, D]`` and keys ``[B, K, H, D]`` are such as can be attended with here.

    A single key is none that cuDNN's backward pass takes: it ends the process.
    """
    return query.is_cuda and query.dtype == torch.bfloat16 and query.shape[-1] <= WIDEST and key.shape[1] > 1


@torch.library.custom_op("rc_grpo::attention", mutates_args=())
def attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return what attention mixes, and the logarithm of each row's sum of exponentials.

    On a CPU it is the plain expression.

    Args:
        query: ``[B, Q, H, D]``.
        key: ``[B, K, H, D]``.
        value: ``[B, K, H, D]``.

    Returns:
        ``[B, Q, H, D]`` in the dtype of the queries, and ``[B, H, Q]`` float32.
    """
    if query.is_cuda:
        mixed, summed = flash_attn_func()(query, key, value, return_attn_probs=True)
        return mixed, summed
    scores = _scores(query, key)
    summed = scores.logsumexp(dim=-1)
    weights = (scores - summed[..., None]).exp()
    return torch.einsum("bhqk,bkhd->bqhd", weights, value.float()).to(query.dtype), summed


@attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    batch, rows, heads, _ = query.shape
    return query.new_empty(query.shape), query.new_empty(batch, heads, rows, dtype=torch.float32)


@torch.library.custom_op("rc_grpo::attention_backward", mutates_args=())
def attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, summed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of queries, keys and values from that of what `attention` mixed."""
    if query.is_cuda:
        by_head = (x.transpose(1, 2) for x in (gradient.contiguous(), query, key, value, mixed))
        # Of dropout, of a mask and of lengths there is nothing to be told.
        nothing = torch.zeros((), dtype=torch.int64, device=query.device)
        found = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            *by_head,
            summed[..., None],
            nothing,
            nothing,
            None,
            None,
            None,
            query.shape[1],
            key.shape[1],
            0.0,
            False,
        )
        of_query, of_key, of_value = (x.transpose(1, 2).contiguous() for x in found)
        return of_query, of_key, of_value
    weights = (_scores(query, key) - summed[..., None]).exp()
    pull, width = gradient.float(), math.sqrt(query.shape[-1])
    along = torch.einsum("bqhd,bqhd->bhq", pull, mixed.float())
    inner = weights * (torch.einsum("bqhd,bkhd->bhqk", pull, value.float()) - along[..., None])
    return (
        (torch.einsum("bhqk,bkhd->bqhd", inner, key.float()) / width).to(query.dtype),
        (torch.einsum("bhqk,bqhd->bkhd", inner, query.float()) / width).to(key.dtype),
        torch.einsum("bhqk,bqhd->bkhd", weights, pull).to(value.dtype),
    )


@attention_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, mixed: Tensor, summed: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _pull_back(ctx: Any, gradient: Tensor, _of_sums: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    # A slice of a wider one in a single-stream block, which a compiled graph copies at twice the speed of an operation.
    found: tuple[Tensor, Tensor, Tensor] = attention_backward(gradient.contiguous(), *ctx.saved_tensors)
    return found


attention.register_autograd(_pull_back, setup_context=_keep)
OPERATION = torch.ops.rc_grpo.attention.default


@cache
def flash_attn_func() -> Any:
    """Return FlashAttention 3's function.

    Raises:
        ImportError: it is not there.
    """
    from fa3_fwd_interface import flash_attn_func as found

    return found


def _scores(query: Tensor, key: Tensor) -> Tensor:
    scores: Tensor = torch.einsum("bqhd,bkhd->bhqk", query.float(), key.float())
    return scores / math.sqrt(query.shape[-1])
