"""Projections in float8 for rollouts: row-wise scaled e4m3, twice the matrix rate of bfloat16 on Hopper.

Legitimate in a rollout, because candidates are only points that the surrogate compares; the learner then recomputes
the old anchors in its own precision (``objective.old_path: recompute``).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rc_grpo.editor.fast.kernels import Activation, quantise_rows, row_scale
from rc_grpo.editor.fast.rounding import FLOAT8

HEADROOM = 0.25
"""Share of the format's range that a row of base weights fills; the rest is for what a LoRA adds to it. It costs no
precision: a floating-point format is as fine, relative to the number, at a quarter of its range."""


FEW_ROWS = 64


class QuantisedRows(NamedTuple):
    """Activations ``[..., width]`` in float8, for every projection that reads them.

    Attributes:
        values: ``[rows, width]`` e4m3.
        scale: what 1 in a row stands for, ``[rows, 1]`` float32.
        leading: the shape before the width.
        dtype: what a projection of them returns.
    """

    values: Tensor
    scale: Tensor
    leading: torch.Size
    dtype: torch.dtype


def quantise(x: Tensor, activation: Activation = "none") -> QuantisedRows:
    """Quantise activations ``[..., width]`` token by token, after a function of them if asked for."""
    values, scale = quantise_rows(x.reshape(-1, x.shape[-1]), activation)
    return QuantisedRows(values, scale, x.shape[:-1], x.dtype)


def multiply(rows: QuantisedRows, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``rows W^T + bias``, ``[..., out]``, accumulated in float32.

    On a CPU the same numbers are multiplied in float32: its rounding without its speed.

    Args:
        rows: activations.
        weight: ``[out, in]`` e4m3.
        scale: what 1 in a row of the weights stands for, ``[out, 1]`` float32.
        bias: ``[out]``, if there is one.
    """
    if not rows.values.is_cuda:
        exact = (rows.values.float() @ weight.float().t()) * rows.scale * scale.t()
        return (exact if bias is None else exact + bias).to(rows.dtype).reshape(*rows.leading, -1)
    # cuBLAS (13.0) has no kernel with a bias for few rows of a large inner dimension.
    apart = len(rows.values) < FEW_ROWS
    product = torch._scaled_mm(
        rows.values,
        weight.t(),
        scale_a=rows.scale,
        scale_b=scale.t(),
        bias=None if apart else bias,
        out_dtype=rows.dtype,
        use_fast_accum=True,
    )
    if apart and bias is not None:
        product = product + bias
    return product.reshape(*rows.leading, -1)


class Fp8Linear(nn.Module):
    """A frozen linear layer ``[..., in] -> [..., out]``, weights scaled by output row, activations by token.

    Args:
        linear: in bfloat16 on a CUDA device; in and out are multiples of 16.
        activation: its input comes before that function of it, which quantisation applies on the way.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, activation: Activation = "none") -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = row_scale(weight, torch.finfo(FLOAT8).max * HEADROOM)
        self.register_buffer("weight", (weight.float() / scale).to(FLOAT8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self._activation: Activation = activation

    def forward(self, x: Tensor | QuantisedRows) -> Tensor:
        """Quantise ``x`` token by token, unless it comes quantised, and multiply, accumulating in float32."""
        rows = x if isinstance(x, QuantisedRows) else quantise(x, self._activation)
        return multiply(rows, self.weight, self.scale, self.bias)


class Fp8SplitLinear(Fp8Linear):
    """A frozen linear layer whose input comes in two parts: their concatenation is never written.

    Args:
        linear: as for `Fp8Linear`.
        first: width of the first part; a multiple of 16.
        activation: the second part comes before that function of it.
    """

    def __init__(self, linear: nn.Linear, first: int, activation: Activation = "none") -> None:
        super().__init__(linear, activation)
        self._first = first

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
        """Quantise each part token by token, and multiply."""
        ahead = multiply(quantise(first), self.weight[:, : self._first], self.scale)
        rest = self.weight[:, self._first :]
        return ahead + multiply(quantise(second, self._activation), rest, self.scale, self.bias)


def is_there(device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether an editor can multiply in float8: in bfloat16 on a CUDA device of capability 8.9 or later."""
    return dtype == torch.bfloat16 and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def check(device: torch.device, dtype: torch.dtype, option: str = "rollout.fp8") -> None:
    """Check that an editor can multiply in float8, see `is_there`.

    Args:
        device: of the editor.
        dtype: of the editor.
        option: that asks for it.

    Raises:
        ValueError: it cannot; says why.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        raise ValueError(f"{option} needs a GPU with float8 (Ada, Hopper or later), not {device}")
    if dtype != torch.bfloat16:
        raise ValueError(f"{option} needs editor.dtype bfloat16, not {dtype}")
