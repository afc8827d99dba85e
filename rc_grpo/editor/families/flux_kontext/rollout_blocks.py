"""FLUX's blocks rearranged for rollouts on a GPU: the same function with fewer trips to memory.

- A GELU runs in the epilogue of the product before it, or, in float8, in the quantisation for the product after it.
- A single block's last projection is applied to its attention and to its MLP apart, and the results are added: their
  concatenation, five times as wide as the stream, is never written.

Nothing here has a backward pass.
"""

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers.transformer_flux import FluxSingleTransformerBlock
from torch import Tensor, nn

from rc_grpo.editor import fp8
from rc_grpo.editor.fp8 import Fp8Linear, quantise
from rc_grpo.editor.stock.rollout_layers import GeluProjection, fuse_gelu, quantise_linears


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
        if isinstance(self.proj_mlp, Fp8Linear):
            modulated = quantise(modulated)
        mlp = self.proj_mlp(modulated)
        attended = self.attn(
            hidden_states=modulated, image_rotary_emb=image_rotary_emb, **(joint_attention_kwargs or {})
        )
        stream = stream + gate.unsqueeze(1) * (self.project_attention(attended) + self.project_mlp(mlp))
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
        attention, mlp = _split(block.proj_out, block.attn.inner_dim)
        del block.proj_out, block.act_mlp
        block.project_attention = Fp8Linear(attention) if in_fp8 else attention
        block.project_mlp = Fp8Linear(mlp, "gelu") if in_fp8 else mlp
        block.proj_mlp = Fp8Linear(block.proj_mlp) if in_fp8 else GeluProjection(block.proj_mlp)
        block.__class__ = RolloutSingleBlock
        if in_fp8:
            quantise_linears(block.attn)


def _split(linear: nn.Linear, at: int) -> tuple[nn.Linear, nn.Linear]:
    """Return the layer's two halves by input; they share its memory."""
    halves = []
    for part, bias in ((slice(0, at), None), (slice(at, None), linear.bias)):
        with torch.device("meta"):
            half = nn.Linear(1, 1, bias=False)
        half.weight = nn.Parameter(linear.weight.detach()[:, part], requires_grad=False)
        half.in_features, half.out_features = half.weight.shape[1], half.weight.shape[0]
        half.register_parameter("bias", bias)
        halves.append(half)
    return halves[0], halves[1]
