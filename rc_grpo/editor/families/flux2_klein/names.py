"""FLUX.2's modules by the names of its first code."""

from rc_grpo.editor.layouts import Blocks
from rc_grpo.editor.stock.first_names import TWO_STREAMS

_DOUBLE = {
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}

FIRST_NAMES = (
    Blocks("double_blocks", "transformer_blocks", {**TWO_STREAMS, **_DOUBLE}),
    Blocks(
        "single_blocks",
        "single_transformer_blocks",
        {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)},
    ),
)
