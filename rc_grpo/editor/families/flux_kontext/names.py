"""FLUX.1's modules by the names of its first code."""

from rc_grpo.editor.layouts import Blocks
from rc_grpo.editor.stock.first_names import TWO_STREAMS

_DOUBLE = {
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}

FIRST_NAMES = (
    Blocks("double_blocks", "transformer_blocks", {**TWO_STREAMS, **_DOUBLE}),
    Blocks("single_blocks", "single_transformer_blocks", _SINGLE),
)
