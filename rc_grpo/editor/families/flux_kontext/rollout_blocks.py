"""FLUX's blocks rearranged for rollouts on a GPU: the same function with fewer trips to memory.

- A GELU runs in the epilogue of the product before it, or, in float8, in the quantisation for the product after it.
- A single block's last projection is applied to its attention and to its MLP apart, and the results are added: their
  concatenation, five times as wide as the stream, is never written.

All projections keep their names, so that a LoRA may be on any of them. Nothing here has a backward pass.
"""

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from torch import Tensor
from torch.nn.functional import linear

from rc_grpo.editor.fast import fp8
from rc_grpo.editor.fast.fp8 import Fp8Linear, Fp8SplitLinear, quantise
from rc_grpo.editor.fast.kernels import gelu_linear
from rc_grpo.editor.stock.rollout_layers import fuse_gelu, quantise_linears


class RolloutSingleBlock(FluxSingleTransformerBlock):  # type: ignore[misc]
    """A single block whose parts `arrange` has exchanged."""

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        joint_attention_kwargs: dict[str, object] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return text and image streams, as the block it takes the place of."""
        text = encoder_hidden_states.shape[1]
        stream = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        modulated, gate = self.norm(stream, emb=temb)
        given = joint_attention_kwargs or {}
        if isinstance(self.proj_mlp, Fp8Linear):
            rows = quantise(modulated)
            mlp = self.proj_mlp(rows)
            attended = self.attn(hidden_states=rows, image_rotary_emb=image_rotary_emb, **given)
            found = self.proj_out(attended, mlp)
        else:
            mlp = gelu_linear(modulated, self.proj_mlp.weight, self.proj_mlp.bias)
            attended = self.attn(hidden_states=modulated, image_rotary_emb=image_rotary_emb, **given)
            of_attention, of_mlp = self.proj_out.weight.split([attended.shape[-1], mlp.shape[-1]], dim=1)
            found = linear(attended, of_attention) + linear(mlp, of_mlp, self.proj_out.bias)
        stream = stream + gate.unsqueeze(1) * found
        return stream[:, :text], stream[:, text:]


def arrange(transformer: FluxTransformer2DModel, *, in_fp8: bool) -> None:
    """Rearrange the blocks of a bfloat16 model on a GPU, and put their projections into float8 if asked for.

    Raises:
        ValueError: float8 is asked for where there is none.
    """
    if in_fp8:
        fp8.check(transformer.device, transformer.dtype)
    for block in transformer.transformer_blocks:
        fuse_gelu(block.ff, in_fp8=in_fp8)
        fuse_gelu(block.ff_context, in_fp8=in_fp8)
        if in_fp8:
            quantise_linears(block.attn)
    for block in transformer.single_transformer_blocks:
        del block.act_mlp
        if in_fp8:
            block.proj_out = Fp8SplitLinear(block.proj_out, block.attn.inner_dim, "gelu")
            block.proj_mlp = Fp8Linear(block.proj_mlp)
            quantise_linears(block.attn)
        block.__class__ = RolloutSingleBlock
