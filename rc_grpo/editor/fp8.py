"""Projections in float8 for rollouts: row-wise scaled e4m3, twice the matrix rate of bfloat16 on Hopper.

Legitimate in a rollout, because candidates are only points that the surrogate compares; the learner then recomputes
the old anchors in its own precision (``objective.old_path: recompute``).
"""

import torch
from torch import Tensor, nn

from rc_grpo.editor.kernels import FLOAT8, quantise_rows, row_scale

HEADROOM = 0.25
"""Share of the format's range that a row of base weights fills; the rest is for what a LoRA adds to it. It costs no
precision: a floating-point format is as fine, relative to the number, at a quarter of its range."""


class Fp8Linear(nn.Module):
    """A frozen linear layer ``[..., in] -> [..., out]``, weights scaled by output row, activations by token.

    Args:
        linear: in bfloat16 on a CUDA device; in and out are multiples of 16.
        gelu: its input comes before its GELU (tanh form), which quantisation applies on the way.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scale = row_scale(weight, torch.finfo(FLOAT8).max * HEADROOM)
        self.register_buffer("weight", (weight.float() / scale).to(FLOAT8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias
        self._gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        """Quantise ``x`` token by token and multiply, accumulating in float32."""
        quantised, scale = quantise_rows(x.reshape(-1, x.shape[-1]), self._gelu)
        product = torch._scaled_mm(
            quantised,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale.t(),
            bias=self.bias,
            out_dtype=x.dtype,
            use_fast_accum=True,
        )
        return product.reshape(*x.shape[:-1], -1)


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Check that an editor can multiply in float8.

    Raises:
        ValueError: it is not in bfloat16 on a CUDA device of capability 8.9 or later.
    """
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 9):
        raise ValueError(f"rollout.fp8 needs a GPU with float8 (Ada, Hopper or later), not {device}")
    if dtype != torch.bfloat16:
        raise ValueError(f"rollout.fp8 needs editor.dtype bfloat16, not {dtype}")
