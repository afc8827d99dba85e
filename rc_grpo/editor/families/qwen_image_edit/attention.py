"""The joint attention of Qwen-Image's blocks: like other double-stream blocks' but for how positions turn it."""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from rc_grpo.editor.fast.fp8 import QuantisedRows
from rc_grpo.editor.stock.attention import apart, heads
from rc_grpo.editor.stock.complex_positions import TurnedAttention


class QwenJointAttention(TurnedAttention):
    """Attention processor; joint order ``[text | target | source]``."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor | QuantisedRows,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend; the text comes apart from the images and goes back apart. Nothing is padded, so nothing is masked."""
        if encoder_hidden_states_mask is not None or attention_mask is not None:
            raise ValueError("a text is bound at its true length: there is nothing to mask")
        head_dim = attn.inner_dim // attn.heads
        image = heads(head_dim, hidden_states, (attn.to_q, attn.to_k, attn.to_v))
        text = heads(head_dim, encoder_hidden_states, (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
        rotary = self.rotary(*image_rotary_emb[::-1])
        query = self.norm_and_rotate((text[0], image[0]), (attn.norm_added_q, attn.norm_q), rotary)
        key = self.norm_and_rotate((text[1], image[1]), (attn.norm_added_k, attn.norm_k), rotary)
        mixed = self.attend(query, key, torch.cat([text[2], image[2]], dim=1))
        return apart(attn, mixed, encoder_hidden_states.shape[1])
