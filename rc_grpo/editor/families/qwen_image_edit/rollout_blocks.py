"""Qwen-Image's blocks rearranged for rollouts on a GPU: the same function with fewer trips to memory.

GELUs run in the epilogue of the product before them, or, in float8, in the quantisation for the product after it.
All projections keep their names, so that a LoRA may be on any of them. Nothing here has a backward pass.
"""

from diffusers import QwenImageTransformer2DModel

from rc_grpo.editor.fast import fp8
from rc_grpo.editor.stock.rollout_layers import fuse_gelu, quantise_linears


def arrange(transformer: QwenImageTransformer2DModel, *, in_fp8: bool) -> None:
    """Rearrange the blocks, and put their projections into float8 if asked for.

    Raises:
        ValueError: float8 is asked for where there is none.
    """
    if in_fp8:
        fp8.check(transformer.device, transformer.dtype)
    for block in transformer.transformer_blocks:
        fuse_gelu(block.img_mlp, in_fp8=in_fp8)
        fuse_gelu(block.txt_mlp, in_fp8=in_fp8)
        if in_fp8:
            quantise_linears(block.attn)
