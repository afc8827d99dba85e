"""Layers of blocks rearranged for rollouts on a GPU: the same functions with fewer trips to memory.

Each keeps the names and the memory of the projections in it, so that a LoRA is merged into them where they are. Nothing
here has a backward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rc_grpo.editor.fast.fp8 import Fp8Linear
from rc_grpo.editor.fast.kernels import gelu_linear


class GeluProjection(nn.Module):
    """A feed-forward network's first projection and the GELU (tanh form) behind it.

    In bfloat16 the GELU runs in the epilogue of the product; in float8 the quantisation for the next one applies it.

    Args:
        proj: the projection, by the name that diffusers gives it.
    """

    def __init__(self, proj: nn.Linear | Fp8Linear) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: Tensor) -> Tensor:
        """Return ``gelu(proj(x))``, or ``proj(x)`` in float8."""
        if isinstance(self.proj, Fp8Linear):
            return self.proj(x)  # type: ignore[no-any-return]
        return gelu_linear(x, self.proj.weight, self.proj.bias)  # type: ignore[no-any-return]


class SplitLinear(nn.Module):
    """A linear layer without bias whose input comes in two parts: their concatenation is never written.

    Args:
        linear: ``[..., in] -> [..., out]``.
        first: width of the first part.
    """

    weight: Tensor

    def __init__(self, linear: nn.Linear, first: int) -> None:
        super().__init__()
        if linear.bias is not None:
            raise ValueError("a layer with a bias is not split")
        self.weight = linear.weight
        self._width: int = first

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return ``linear(cat([first, second], -1))``, ``[..., out]``."""
        ahead = functional.linear(first, self.weight[:, : self._width])
        rest = self.weight[:, self._width :].t()
        return torch.addmm(ahead.flatten(0, -2), second.flatten(0, -2), rest).view_as(ahead)


def fuse_gelu(network: Any, *, in_fp8: bool) -> None:
    """Exchange the two projections of diffusers' feed-forward network for ones with the GELU between them."""
    first = network.net[0].proj
    network.net[0] = GeluProjection(Fp8Linear(first) if in_fp8 else first)
    if in_fp8:
        network.net[2] = Fp8Linear(network.net[2], "gelu")


def quantise_linears(module: nn.Module) -> None:
    """Exchange all linear layers inside a module for ones in float8, by the same names."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, child = name.rpartition(".")
            setattr(module.get_submodule(parent), child, Fp8Linear(layer))
