"""A linear layer of two inputs: what attention's and the MLP's outputs go through together in a single-stream block."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class SplitLinear(nn.Module):
    """A linear layer without bias whose input comes in two parts: their concatenation is never written.

    It has the layer's own weight, so that a LoRA is merged into it where it is.

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
