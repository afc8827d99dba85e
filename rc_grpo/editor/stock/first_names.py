"""First names that architectures share: two streams of attention, each with its query, key and value in one module."""

from collections.abc import Mapping
from types import MappingProxyType

TWO_STREAMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
        "img_attn.proj": ("attn.to_out.0",),
        "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        "txt_attn.proj": ("attn.to_add_out",),
    }
)
"""See `rc_grpo.editor.layouts.Blocks`."""
