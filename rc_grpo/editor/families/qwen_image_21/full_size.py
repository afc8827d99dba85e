"""Qwen-Image-2.1's architecture with random weights, ``editor.model: full-size`` of this family.

A forward pass costs what it costs with the real ones. Its edits are noise.
"""

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
)
from transformers import (
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.stock.chat_text import TEMPLATE, byte_level_tokenizer, special_tokens
from rc_grpo.editor.stock.random_weights import FullSize, assembled, random_weights
from rc_grpo.editor.stock.schedule import SCHEDULER

TOKEN = 16
"""Side of a token in pixels."""

ENCODERS_GIB = 17.0
"""Qwen3-VL-8B and VAE in bfloat16."""

NAMES = (FULL_SIZE, "full-size-qwen-image-21")
"""In ``editor.model``; the first wants ``editor.family`` named."""

TRANSFORMER = MappingProxyType(
    {
        "in_channels": 64,
        "out_channels": 64,
        "num_layers": 32,
        "attention_head_dim": 128,
        "num_attention_heads": 32,
        "context_in_dim": 4096,
        "mlp_ratio": 3,
    }
)


SEEN_AT_LEAST = 256 * 256
"""Pixels to which the text encoder enlarges a smaller picture."""


def named(editor: EditorConfig) -> FullSize | None:
    """Return this architecture where ``editor.model`` names it and no weights."""
    return FullSize(build_transformer, build_pipeline) if editor.model in NAMES else None


def build_transformer(device: torch.device, dtype: torch.dtype, **changes: Any) -> QwenImage21Transformer2DModel:
    """Build the 7-billion-parameter transformer, or with changes such as to ``num_layers``; see `random_weights`."""
    return random_weights(partial(QwenImage21Transformer2DModel, **dict(TRANSFORMER) | changes), device, dtype)


def build_pipeline(device: torch.device, dtype: torch.dtype, **components: Any) -> QwenImage21Pipeline:
    """Build text encoder and VAE; the tokenizer has a token a byte. A component given is taken as it is."""
    tokenizer = byte_level_tokenizer()
    makers: dict[str, Callable[[], Any]] = {
        "transformer": partial(build_transformer, device, dtype),
        "vae": partial(random_weights, AutoencoderKLQwenImage21, device, dtype),
        "text_encoder": partial(
            random_weights, lambda: Qwen3VLForConditionalGeneration(encoder(tokenizer)), device, dtype
        ),
        "processor": partial(processor, tokenizer),
        "scheduler": partial(FlowMatchEulerDiscreteScheduler, **SCHEDULER),
    }
    return assembled(QwenImage21Pipeline, makers, components)


def encoder(tokenizer: Any) -> Qwen3VLConfig:
    """Return the configuration of Qwen3-VL-8B, its special tokens where a tokenizer has them."""
    rotary = {"rope_type": "default", "mrope_section": [24, 20, 20], "rope_theta": 5e6}
    language = {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262144,
        "rope_parameters": rotary,
    }  # fmt: skip
    return Qwen3VLConfig(text_config=language, vision_config={"out_hidden_size": 4096}, **special_tokens(tokenizer))


def processor(tokenizer: Any, seen_at_least: int = SEEN_AT_LEAST) -> Qwen3VLProcessor:
    """Return the processor that puts pictures and words together, as published.

    Args:
        tokenizer: of the words.
        seen_at_least: pixels to which a smaller picture is enlarged.
    """
    even = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    images = Qwen2VLImageProcessor(patch_size=16, min_pixels=seen_at_least, max_pixels=4096 * 4096, **even)
    return Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=TEMPLATE)
