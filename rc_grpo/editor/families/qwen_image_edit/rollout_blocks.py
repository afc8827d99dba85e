"""Qwen-Image's blocks rearranged for rollouts on a GPU: the same function with fewer trips to memory.

GELUs run in the epilogue of the product before them, or, in float8, in the quantisation for the product after it.
Positions are cosines and sines: norm and rotation are one kernel, and no complex number is in the compiled graph.
All projections keep their names, so that a LoRA may be on any of them. Nothing here has a backward pass.
"""

from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from torch import Tensor, nn

from rc_grpo.editor import fp8
from rc_grpo.editor.stock.rollout_layers import fuse_gelu, quantise_linears


class RealPositions(nn.Module):
    """A model's own positions as cosines and sines ``[S, D]`` float32, text first, each value twice in a row."""

    def __init__(self, positions: nn.Module) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        """Return them for what the model's own are asked."""
        of_images, of_text = self.positions(*arguments, **options)
        turns = torch.view_as_real(torch.cat([of_text, of_images])).repeat_interleave(2, dim=1)
        return turns[..., 0].contiguous(), turns[..., 1].contiguous()


def arrange(transformer: QwenImageTransformer2DModel, *, in_fp8: bool) -> None:
    """Rearrange the blocks, and put their projections into float8 if asked for.

    Raises:
        ValueError: float8 is asked for where there is none.
    """
    if in_fp8:
        fp8.check(transformer.device, transformer.dtype)
    transformer.pos_embed = RealPositions(transformer.pos_embed)
    for block in transformer.transformer_blocks:
        fuse_gelu(block.img_mlp, in_fp8=in_fp8)
        fuse_gelu(block.txt_mlp, in_fp8=in_fp8)
        if in_fp8:
            quantise_linears(block.attn)
