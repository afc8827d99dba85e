"""Attention in float8 for rollouts: FlashAttention 3, its inputs with a scale for each head of an image.

Legitimate where float8 projections are (`rc_grpo.editor.fast.fp8`). Attention that is recorded is measured on queries
and keys as they were before.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rc_grpo.editor.fast import fp8
from rc_grpo.editor.fast.flash_attention import PACKAGE, flash_attn_func
from rc_grpo.editor.fast.kernels import row_scale
from rc_grpo.editor.fast.rounding import FLOAT8


@torch.library.custom_op("rc_grpo::attention_in_float8", mutates_args=())
def attention_in_float8(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what attention mixes, ``[B, Q, H, D]``, in the dtype of the queries.

    On a CPU the same numbers are multiplied in float32, attention's weights unrounded.

    Args:
        query: ``[B, Q, H, D]``.
        key: ``[B, K, H, D]``.
        value: ``[B, K, H, D]``.
    """
    (q, q_scale), (k, k_scale), (v, v_scale) = (quantise_heads(x) for x in (query, key, value))
    if query.is_cuda:
        mixed = flash_attn_func()(q, k, v, q_descale=q_scale, k_descale=k_scale, v_descale=v_scale)
        mixed = mixed[0] if isinstance(mixed, tuple) else mixed
    else:
        q, k, v = (
            (rows.float() * scale[:, None, :, None]).transpose(1, 2)
            for rows, scale in ((q, q_scale), (k, k_scale), (v, v_scale))
        )
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2)
    whole: Tensor = mixed.to(query.dtype).contiguous()
    return whole


@attention_in_float8.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return query.new_empty(query.shape)


def quantise_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale each head of each image by its largest entry, and round it to float8.

    Args:
        x: ``[B, S, H, D]``.

    Returns:
        ``[B, S, H, D]`` e4m3, and what 1 in a head stands for, ``[B, H]`` float32.
    """
    if x.is_cuda:
        from rc_grpo.editor.fast import triton_kernels

        return triton_kernels.quantise_heads(x)
    scale = row_scale(x.transpose(1, 2).flatten(2), torch.finfo(FLOAT8).max)[..., 0]
    return (x.float() / scale[:, None, :, None]).to(FLOAT8), scale


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Check that an editor can attend in float8.

    Raises:
        ValueError: it cannot; says why, and the way out.
    """
    fp8.check(device, dtype, "rollout.fp8=all")
    if torch.cuda.get_device_capability(device) < (9, 0):
        raise ValueError(f"rollout.fp8=all needs a Hopper GPU, not {device}; set rollout.fp8=gemm")
    try:
        flash_attn_func()
    except ImportError as error:
        raise ValueError(
            f"rollout.fp8=all attends by FlashAttention 3, which is not here ({error}): pip install {PACKAGE}, or set "
            "rollout.fp8=gemm"
        ) from error
