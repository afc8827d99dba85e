"""FLUX.2 klein's architectures with random weights, ``editor.model: full-size`` of this family.

A forward pass costs what it costs with the real ones. Their edits are noise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen3Config, Qwen3ForCausalLM

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.stock.chat_text import byte_level_tokenizer
from rc_grpo.editor.stock.random_weights import FullSize, assembled, random_weights

TOKEN = 16
"""Side of a token in pixels."""


SCHEDULER = MappingProxyType({"shift": 3.0, "use_dynamic_shifting": True})
"""The published scheduler, as far as it is not diffusers' default."""


@dataclass(frozen=True)
class Size:
    """One of the published sizes.

    Attributes:
        transformer: what of its configuration is not diffusers' default.
        encoder: of Qwen3's.
        encoders_gib: of text encoder and VAE in bfloat16.
    """

    transformer: dict[str, Any]
    encoder: dict[str, Any]
    encoders_gib: float


_QWEN3 = {"vocab_size": 151936, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
_QWEN3 |= {"head_dim": 128, "max_position_embeddings": 40960}
_BOTH = {"in_channels": 128, "attention_head_dim": 128, "guidance_embeds": False}

KLEIN_4B = Size(
    _BOTH | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
    _QWEN3 | {"hidden_size": 2560, "intermediate_size": 9728, "tie_word_embeddings": True},
    encoders_gib=7.7,
)
KLEIN_9B = Size(
    _BOTH | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    _QWEN3 | {"hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": False},
    encoders_gib=15.4,
)
KV_NAME = "full-size-klein-9b-kv"
SIZES = {FULL_SIZE: KLEIN_4B, "full-size-klein-4b": KLEIN_4B, "full-size-klein-9b": KLEIN_9B, KV_NAME: KLEIN_9B}
"""By ``editor.model``; the first wants ``editor.family`` named."""


def size_of(editor: EditorConfig) -> Size | None:
    """Return the size that ``editor.model`` names; None if it is a model with weights of its own."""
    return SIZES.get(editor.model)


def named(editor: EditorConfig) -> FullSize | None:
    """Return the architecture that ``editor.model`` names; None if it is a model with weights of its own."""
    if (size := size_of(editor)) is None:
        return None
    pipeline = partial(build_pipeline, size, kv=editor.model == KV_NAME)
    return FullSize(partial(build_transformer, size), pipeline)


def build_transformer(size: Size, device: torch.device, dtype: torch.dtype, **changes: Any) -> Flux2Transformer2DModel:
    """Build the transformer on a device; the same weights every time there.

    Args:
        size: which one.
        device: where; ``meta`` builds shapes alone.
        dtype: of the weights.
        changes: to the architecture, such as ``num_layers``.
    """
    sizes = size.transformer | changes
    return random_weights(lambda: Flux2Transformer2DModel(**sizes), device, dtype)


def build_pipeline(
    size: Size, device: torch.device, dtype: torch.dtype, *, kv: bool = False, **components: Any
) -> Flux2KleinPipeline | Flux2KleinKVPipeline:
    """Build text encoder and VAE; the tokenizer has a token a byte. A component given is taken as it is.

    Args:
        size: which one.
        device: where; ``meta`` builds shapes alone.
        dtype: of the weights.
        kv: of the KV variant, whose pipeline cannot be without a transformer.
        components: by name.
    """
    makers: dict[str, Callable[[], Any]] = {
        "transformer": lambda: build_transformer(size, device, dtype),
        "vae": lambda: random_weights(AutoencoderKLFlux2, device, dtype),
        "text_encoder": lambda: random_weights(lambda: Qwen3ForCausalLM(Qwen3Config(**size.encoder)), device, dtype),
        "tokenizer": byte_level_tokenizer,
        "scheduler": partial(FlowMatchEulerDiscreteScheduler, **SCHEDULER),
    }
    whole = components.get("transformer", makers) is not None
    return assembled(Flux2KleinKVPipeline if kv and whole else Flux2KleinPipeline, makers, components)
