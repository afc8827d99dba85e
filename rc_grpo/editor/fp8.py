"""Projections in float8 for rollouts: row-wise scaled e4m3, twice the matrix rate of bfloat16 on Hopper.

Legitimate in a rollout, because candidates are only points that the surrogate compares; the learner then recomputes
the old anchors in its own precision (``objective.old_path: recompute``).
"""

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn

FORMAT = torch.float8_e4m3fn
LARGEST = torch.finfo(FORMAT).max
HEADROOM = 0.75
"""Share of the format's range that a row of base weights fills; the rest is for what a LoRA adds to it."""


class Fp8Linear(nn.Module):
    """A frozen linear layer ``[..., in] -> [..., out]``, weights scaled by output row, activations by token.

    Args:
        linear: in bfloat16 on a CUDA device; in and out are multiples of 16.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = _scale(weight, LARGEST * HEADROOM)
        self.register_buffer("weight", (weight / scale).to(FORMAT))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Quantise ``x`` token by token and multiply, accumulating in float32."""
        tokens = x.reshape(-1, x.shape[-1])
        scale = _scale(tokens.float(), LARGEST)
        quantised = (tokens.float() / scale).clamp(-LARGEST, LARGEST).to(FORMAT)
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


def _scale(rows: Tensor, largest: float) -> Tensor:
    """Return what 1 in the quantised rows stands for, ``[rows, 1]``: their largest entry becomes ``largest``."""
    return (rows.abs().amax(dim=-1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)


def quantise(transformer: FluxTransformer2DModel) -> int:
    """Put `Fp8Linear` in place of every projection inside the blocks, modulation layers excepted.

    Returns:
        The number of projections replaced. FLUX.1: 19 * 12 + 38 * 5 = 418.

    Raises:
        ValueError: the model is not in bfloat16 on a CUDA device of capability 8.9 or later.
    """
    if transformer.device.type != "cuda" or torch.cuda.get_device_capability(transformer.device) < (8, 9):
        raise ValueError(
            f"rollout.fp8 needs a GPU with float8 (Ada, Hopper or later), the editor is on {transformer.device}"
        )
    if transformer.dtype != torch.bfloat16:
        raise ValueError(f"rollout.fp8 needs editor.dtype bfloat16, not {transformer.dtype}")
    replaced = 0
    for block in [*transformer.transformer_blocks, *transformer.single_transformer_blocks]:
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear) and "norm" not in name:
                parent, _, child = name.rpartition(".")
                setattr(block.get_submodule(parent), child, Fp8Linear(module))
                replaced += 1
    return replaced
