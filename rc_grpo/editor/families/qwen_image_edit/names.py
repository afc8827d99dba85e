"""Qwen-Image's modules by the names of its first code, which are diffusers' own."""

from rc_grpo.editor.layouts import Blocks

_MODULES = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
    *(f"{stream}_{module}" for stream in ("img", "txt") for module in ("mod.1", "mlp.net.0.proj", "mlp.net.2")),
)

FIRST_NAMES = (Blocks("transformer_blocks", "transformer_blocks", {name: (name,) for name in _MODULES}),)
