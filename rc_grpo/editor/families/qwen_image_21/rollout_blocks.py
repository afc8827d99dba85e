"""Qwen-Image-2.1's blocks rearranged for rollouts on a GPU: in float8, projections that read the same rows share them.

In bfloat16 there is nothing to rearrange. All projections keep their names, so that a LoRA may be on any of them.
Nothing here has a backward pass.
"""

from typing import Any

from diffusers import QwenImage21Transformer2DModel
from torch import Tensor, nn
from torch.nn import functional

from rc_grpo.editor.fast import fp8
from rc_grpo.editor.fast.fp8 import Fp8Linear, quantise
from rc_grpo.editor.stock.rollout_layers import quantise_linears


class QuantisedSwiglu(nn.Module):
    """A block's feed-forward network with its projections in float8: both that read its input read it quantised once.

    Args:
        network: diffusers' own.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.proj, self.gate_layer = Fp8Linear(network.proj), Fp8Linear(network.gate_layer)
        self.out = Fp8Linear(network.out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output, ``[..., width]``."""
        rows = quantise(x)
        hidden: Tensor = self.out(functional.silu(self.gate_layer(rows)) * self.proj(rows))
        return hidden


def arrange(transformer: QwenImage21Transformer2DModel, *, in_fp8: bool) -> None:
    """Put the blocks' projections into float8 if asked for.

    Raises:
        ValueError: float8 is asked for where there is none.
    """
    if not in_fp8:
        return
    fp8.check(transformer.device, transformer.dtype)
    for block in transformer.transformer_blocks:
        quantise_linears(block.attn)
        block.img_mlp = QuantisedSwiglu(block.img_mlp)
