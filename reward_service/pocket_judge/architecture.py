"""The judge before training: Qwen2.5-VL's classes and layout at seven million parameters."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from rc_grpo.pocket.world import IMAGE_SIZE
from reward_service.pocket_judge.tokenizer import (
    END_OF_TEXT,
    END_OF_TURN,
    IMAGE_PAD,
    MAX_LENGTH,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)

PATCH, MERGE, FRAMES = 8, 2, 2
"""Pixels of a patch's side, patches of a token's side, frames of a patch (a still image is repeated)."""

IMAGE_TOKENS = (IMAGE_SIZE // (PATCH * MERGE)) ** 2
"""Tokens of an image in the language model: 64."""

VISION_DEPTH, VISION_WIDTH, VISION_HEADS = 4, 192, 6
DEPTH, WIDTH, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH = 6, 256, 4, 2, 64

VISION_ROPE_BASE = 10_000.0
"""Fixed in Qwen2.5-VL's code."""

ROPE_BASE = 10.0
"""The columns of an image get the slowest third of the frequencies; with Qwen's base of a million, eight columns would
turn them by a thousandth of a radian, and nothing could tell left from right."""

ROPE_SECTIONS = (8, 12, 12)
"""Frequencies for time, row and column."""


def build_model(tokenizer: Any, seed: int = 0) -> Any:
    """Return an untrained `Qwen2_5_VLForConditionalGeneration` in float32; the same weights for the same seed."""
    ids = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": ROPE_BASE, "mrope_section": list(ROPE_SECTIONS)}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 640,
            "num_hidden_layers": DEPTH,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_VALUE_HEADS,
            "max_position_embeddings": MAX_LENGTH,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope,
            "bos_token_id": ids(END_OF_TEXT),
            "eos_token_id": ids(END_OF_TURN),
            "pad_token_id": ids(END_OF_TEXT),
        },
        vision_config={
            "depth": VISION_DEPTH,
            "hidden_size": VISION_WIDTH,
            "intermediate_size": 448,
            "num_heads": VISION_HEADS,
            "out_hidden_size": WIDTH,
            "in_channels": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": FRAMES,
            # One window is the whole image, and every block sees all of it anyway.
            "window_size": IMAGE_SIZE,
            "fullatt_block_indexes": list(range(VISION_DEPTH)),
        },
        image_token_id=ids(IMAGE_PAD),
        video_token_id=ids(VIDEO_PAD),
        vision_start_token_id=ids(VISION_START),
        vision_end_token_id=ids(VISION_END),
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).float().eval()
    model.generation_config = GenerationConfig(
        bos_token_id=ids(END_OF_TEXT),
        eos_token_id=[ids(END_OF_TURN), ids(END_OF_TEXT)],
        pad_token_id=ids(END_OF_TEXT),
        do_sample=False,
    )
    return model


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model in bfloat16 with all that a server reads beside it; the model is left as it is."""
    copy.deepcopy(model).bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pixels = IMAGE_SIZE**2
    shared = {
        "processor_class": "Qwen2_5_VLProcessor",
        # Larger images are shrunk to the one size it was trained at, smaller ones enlarged.
        "min_pixels": pixels,
        "max_pixels": pixels,
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
        "patch_size": PATCH,
        "merge_size": MERGE,
        "temporal_patch_size": FRAMES,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    for name, key, value in (
        ("preprocessor_config.json", "image_processor_type", "Qwen2VLImageProcessor"),
        ("video_preprocessor_config.json", "video_processor_type", "Qwen2VLVideoProcessor"),
    ):
        (folder / name).write_text(json.dumps({key: value, **shared}, indent=2) + "\n", encoding="utf-8")
