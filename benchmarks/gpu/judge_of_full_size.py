"""A judge's folder of Qwen2.5-VL-7B's size or of Qwen3-VL-8B's, without weights: for ``--load-format dummy``.

Its tokenizer is made like the pocket judge's, of the questions that are asked here, so that a word is a token or so,
as it is to Qwen's own. Random weights cost what real ones cost; what they say is nothing.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PretrainedConfig, Qwen2_5_VLConfig

from rc_grpo.editor.families.qwen_image_21 import full_size as qwen3_vl
from rc_grpo.editor.weights.on_disk import WEIGHTS
from reward_service.contract import QUESTIONS, Question
from reward_service.logits import questions
from reward_service.logits.questions import DigitQuestions
from reward_service.pocket_judge import tokenizer as words
from reward_service.prompts import DEFAULT_PROMPTS, Prompt, Prompts

VOCABULARY, POSITIONS, MOST_TOKENS = 152_064, 32_768, 1280
ARGUMENTS = ("--load-format", "dummy")
"""Of a server that makes the weights up."""
ENVIRONMENT = {"VLLM_USE_FLASHINFER_SAMPLER": "0", "HF_HUB_OFFLINE": "1"}
"""Of one where nothing can be fetched."""
REASONING = 480
"""Characters of a reasoning: about a hundred tokens, as EditScore's own are."""
_PATCH, _MERGE, _FRAMES, _WIDTH = 14, 2, 2, 3584


@dataclass(frozen=True)
class Model:
    """A size of judge.

    Attributes:
        name: of its classes in transformers.
        video: the class that would show it films.
        patch: of an image, in pixels.
        config: of it, from a tokenizer.
    """

    name: str
    video: str
    patch: int
    config: Callable[[Any], PretrainedConfig]


def _qwen3_vl_8b(tokenizer: Any) -> PretrainedConfig:
    config = qwen3_vl.encoder(tokenizer)
    config.text_config.rope_parameters["mrope_interleaved"] = True
    return config


def write(folder: Path, model: str = "qwen2_5_vl_7b") -> None:
    """Write configuration, tokenizer, processor, and a weights file that a server with dummy weights does not read.

    Args:
        folder: to be made.
        model: a key of `MODELS`.
    """
    chosen = MODELS[model]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = words.build_tokenizer(_every_word())
    tokenizer.model_max_length = POSITIONS
    tokenizer.save_pretrained(folder)
    config = chosen.config(tokenizer)
    config.architectures = [f"{chosen.name}ForConditionalGeneration"]
    config.save_pretrained(folder)
    token = (chosen.patch * _MERGE) ** 2
    pixels = {"shortest_edge": 4 * token, "longest_edge": MOST_TOKENS * token}
    for name, key, value in (
        ("preprocessor_config.json", "image_processor_type", "Qwen2VLImageProcessor"),
        ("video_preprocessor_config.json", "video_processor_type", chosen.video),
    ):
        processor = {
            key: value,
            "processor_class": f"{chosen.name}Processor",
            "min_pixels": pixels["shortest_edge"],
            "max_pixels": pixels["longest_edge"],
            "size": pixels,
            "patch_size": chosen.patch,
            "merge_size": _MERGE,
            "temporal_patch_size": _FRAMES,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
        }
        (folder / name).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    save_file({"unused": torch.zeros(1)}, folder / WEIGHTS)


def _every_word() -> Prompts:
    """Return all that is asked as the prompts that a tokenizer is learned on."""
    text, digits = Prompts.load(DEFAULT_PROMPTS), DigitQuestions.load(questions.DEFAULT)

    def asked(question: Question) -> Prompt:
        again = digits.asked(question)
        return Prompt(text="\n".join([text.question(question).text, again.text, *again.marks.values()]))

    sc, pq = (asked(question) for question in QUESTIONS)
    return Prompts(sc=sc, pq=pq)


def _qwen2_5_vl_7b(tokenizer: Any) -> PretrainedConfig:
    ids = tokenizer.convert_tokens_to_ids
    start, turn = ids(words.END_OF_TEXT), ids(words.END_OF_TURN)
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCABULARY,
            "hidden_size": _WIDTH,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "bos_token_id": start,
            "eos_token_id": turn,
            "pad_token_id": start,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": _WIDTH,
            "in_channels": 3,
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": _FRAMES,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        image_token_id=ids(words.IMAGE_PAD),
        video_token_id=ids(words.VIDEO_PAD),
        vision_start_token_id=ids(words.VISION_START),
        vision_end_token_id=ids(words.VISION_END),
        tie_word_embeddings=False,
    )


MODELS = {
    "qwen2_5_vl_7b": Model("Qwen2_5_VL", "Qwen2VLVideoProcessor", _PATCH, _qwen2_5_vl_7b),
    "qwen3_vl_8b": Model("Qwen3VL", "Qwen3VLVideoProcessor", 16, _qwen3_vl_8b),
}
"""EditScore's bases."""
