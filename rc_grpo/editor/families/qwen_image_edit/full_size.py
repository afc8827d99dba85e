"""Qwen-Image-Edit's architecture with random weights, ``editor.model: full-size`` of this family.

A forward pass costs what it costs with the real ones. Its edits are noise.
"""

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.stock.chat_text import TEMPLATE, byte_level_tokenizer, special_tokens
from rc_grpo.editor.stock.random_weights import FullSize, assembled, random_weights
from rc_grpo.editor.stock.schedule import SCHEDULER

TOKEN = 16
"""Side of a token in pixels."""

ENCODERS_GIB = 15.7
"""Qwen2.5-VL-7B and VAE in bfloat16."""

NAMES = (FULL_SIZE, "full-size-qwen-image-edit")
"""In ``editor.model``; the first wants ``editor.family`` named."""

TRANSFORMER = MappingProxyType(
    {
        "patch_size": 2,
        "in_channels": 64,
        "out_channels": 16,
        "num_layers": 60,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3584,
        "zero_cond_t": True,
    }
)
"""Of the 2511 release; 2509 has its source at the target's time, which costs the same."""


def named(editor: EditorConfig) -> FullSize | None:
    """Return this architecture where ``editor.model`` names it and no weights."""
    return FullSize(build_transformer, build_pipeline) if editor.model in NAMES else None


def build_transformer(device: torch.device, dtype: torch.dtype, **changes: Any) -> QwenImageTransformer2DModel:
    """Build the 20-billion-parameter transformer, or with changes such as to ``num_layers``; see `random_weights`."""
    return random_weights(partial(QwenImageTransformer2DModel, **dict(TRANSFORMER) | changes), device, dtype)


def build_pipeline(device: torch.device, dtype: torch.dtype, **components: Any) -> QwenImageEditPlusPipeline:
    """Build text encoder and VAE; the tokenizer has a token a byte. A component given is taken as it is."""
    tokenizer = byte_level_tokenizer()
    makers: dict[str, Callable[[], Any]] = {
        "transformer": partial(build_transformer, device, dtype),
        "vae": partial(random_weights, AutoencoderKLQwenImage, device, dtype),
        "text_encoder": partial(
            random_weights, lambda: Qwen2_5_VLForConditionalGeneration(encoder(tokenizer)), device, dtype
        ),
        "tokenizer": lambda: tokenizer,
        "processor": partial(processor, tokenizer),
        "scheduler": partial(FlowMatchEulerDiscreteScheduler, **SCHEDULER),
    }
    return assembled(QwenImageEditPlusPipeline, makers, components)


def encoder(tokenizer: Any) -> Qwen2_5_VLConfig:
    """Return the configuration of Qwen2.5-VL-7B, its special tokens where a tokenizer has them."""
    rotary = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
    language = {
        "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "rope_parameters": rotary,
    }  # fmt: skip
    vision = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    return Qwen2_5_VLConfig(text_config=language, vision_config=vision, **special_tokens(tokenizer))


def processor(tokenizer: Any) -> Qwen2VLProcessor:
    """Return the processor that puts pictures and words together, as published."""
    images = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=28 * 28 * 16384)
    return Qwen2VLProcessor(images, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
