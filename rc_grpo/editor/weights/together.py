"""Several projections of one input, each with a LoRA on it: the LoRAs' first factors multiply it together.

Apart they read the input, and in the backward pass write a gradient of its size, once a projection; what they multiply
it by is a hundredth as wide as a projection.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.functional import linear

from rc_grpo.editor.fast.adapted_linear import adapted_linear
from rc_grpo.editor.lora import ADAPTER


def adapted(projections: Sequence[nn.Module]) -> TypeGuard[Sequence[Any]]:
    """Whether a LoRA of ours acts on each of them."""
    return all(
        isinstance(one, LoraLayer) and not one.disable_adapters and not one.merged and one.active_adapters == [ADAPTER]
        for one in projections
    )


def project(x: Tensor, projections: Sequence[Any]) -> list[Tensor]:
    """Return what each projection makes of ``[..., in]``, its LoRA's part included.

    Args:
        x: the input of all.
        projections: on each of which a LoRA acts (`adapted`).
    """
    factors = [(own.lora_A[ADAPTER].weight, own.lora_B[ADAPTER].weight) for own in projections]
    joined = linear(x, torch.cat([a for a, _ in factors]).to(x.dtype))
    inner = torch.split(joined, [len(a) for a, _ in factors], dim=-1)
    return [
        _sum(own.base_layer, x, part, b.to(x.dtype) * own.scaling[ADAPTER])
        for own, part, (_, b) in zip(projections, inner, factors, strict=True)
    ]


def _sum(projection: nn.Module, x: Tensor, inner: Tensor, factor: Tensor) -> Tensor:
    if type(projection) is nn.Linear:
        return adapted_linear(x, projection.weight, projection.bias, inner, factor)  # type: ignore[no-any-return]
    return projection(x) + linear(inner, factor)  # type: ignore[no-any-return]
