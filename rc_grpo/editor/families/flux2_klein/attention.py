"""The attention of FLUX.2's single-stream blocks: one projection into it and the MLP, one out of both.

It computes the bits of diffusers' processor, and adds the attention concentration where one is asked for. In rollouts
`rollout_blocks` has exchanged the projection out of both for one that takes the two apart.
"""

import torch
from diffusers.models.transformers.transformer_flux2 import Flux2ParallelSelfAttention
from torch import Tensor

from rc_grpo.editor.fast.fp8 import Fp8SplitLinear
from rc_grpo.editor.stock.attention import ProbedAttention
from rc_grpo.editor.stock.rollout_layers import SplitLinear


class FusedAttention(ProbedAttention):
    """Attention processor of a single-stream block; joint order ``[text | target | source]``."""

    def __call__(
        self,
        attn: Flux2ParallelSelfAttention,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend to, and run the MLP on, the stream ``[B, S, width]``."""
        width = attn.inner_dim
        query, key, value, hidden = attn.to_qkv_mlp_proj(hidden_states).split(
            [width, width, width, attn.mlp_hidden_dim * attn.mlp_mult_factor], dim=-1
        )
        query, key, value = (part.unflatten(-1, (-1, attn.head_dim)) for part in (query, key, value))
        query = self.norm_and_rotate((query,), (attn.norm_q,), image_rotary_emb)
        key = self.norm_and_rotate((key,), (attn.norm_k,), image_rotary_emb)
        mixed = self.attend(query, key, value, attention_mask)
        activated = attn.mlp_act_fn(hidden)
        if isinstance(attn.to_out, SplitLinear | Fp8SplitLinear):
            return attn.to_out(mixed, activated)  # type: ignore[no-any-return]
        return attn.to_out(torch.cat([mixed, activated], dim=-1))  # type: ignore[no-any-return]
