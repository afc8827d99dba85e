"""FLUX.2's blocks rearranged for rollouts on a GPU: the same function with fewer trips to memory.

A single block's last projection takes its attention and its MLP apart, so that their concatenation, four times as wide
as the stream, is never written. In float8, projections that read the same rows quantise them once, and a SwiGLU runs in
the quantisation behind it. All projections keep their names, so that a LoRA may be on any of them. Nothing here has a
backward pass.
"""

from diffusers import Flux2Transformer2DModel
from torch import nn

from rc_grpo.editor.fast import fp8
from rc_grpo.editor.fast.fp8 import Fp8Linear, Fp8SplitLinear
from rc_grpo.editor.stock.rollout_layers import SplitLinear, quantise_linears


def arrange(transformer: Flux2Transformer2DModel, *, in_fp8: bool) -> None:
    """Rearrange the blocks, and put their projections into float8 if asked for.

    Raises:
        ValueError: float8 is asked for where there is none.
    """
    if in_fp8:
        fp8.check(transformer.device, transformer.dtype)
    for block in transformer.transformer_blocks if in_fp8 else ():
        for network in (block.ff, block.ff_context):
            last = network.linear_out
            del network.linear_out
            network.linear_out, network.act_fn = Fp8Linear(last, "swiglu"), nn.Identity()
        quantise_linears(block)
    for block in transformer.single_transformer_blocks:
        out, width = block.attn.to_out, block.attn.inner_dim
        if not in_fp8:
            block.attn.to_out = SplitLinear(out, width)
            continue
        del block.attn.to_out
        quantise_linears(block)
        block.attn.to_out, block.attn.mlp_act_fn = Fp8SplitLinear(out, width, "swiglu"), nn.Identity()
