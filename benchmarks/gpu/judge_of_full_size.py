"""A judge's folder of Qwen2.5-VL's size of seven billion parameters, without weights: for ``--load-format dummy``.

Its tokenizer is made like the pocket judge's, of the questions that are asked here, so that a word is a token or so,
as it is to Qwen's own. Random weights cost what real ones cost; what they say is nothing.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Qwen2_5_VLConfig

from reward_service.contract import QUESTIONS, Question
from reward_service.folders.judge_folder import WEIGHTS
from reward_service.logits import questions
from reward_service.logits.questions import DigitQuestions
from reward_service.pocket_judge import tokenizer as words
from reward_service.prompts import DEFAULT_PROMPTS, Prompt, Prompts

VOCABULARY, POSITIONS, MOST_PIXELS = 152_064, 32_768, 1280 * 28 * 28
ARGUMENTS = ("--load-format", "dummy")
"""Of a server that makes the weights up."""
ENVIRONMENT = {"VLLM_USE_FLASHINFER_SAMPLER": "0", "HF_HUB_OFFLINE": "1"}
"""Of one where nothing can be fetched."""
REASONING = 480
"""Characters of a reasoning: about a hundred tokens, as EditScore's own are."""
_PATCH, _MERGE, _FRAMES, _WIDTH = 14, 2, 2, 3584
_PROCESSORS = (
    ("preprocessor_config.json", "image_processor_type", "Qwen2VLImageProcessor"),
    ("video_preprocessor_config.json", "video_processor_type", "Qwen2VLVideoProcessor"),
)


def write(folder: Path) -> None:
    """Write configuration, tokenizer, processor, and a weights file that a server with dummy weights does not read."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = words.build_tokenizer(_every_word())
    tokenizer.model_max_length = POSITIONS
    tokenizer.save_pretrained(folder)
    _config(tokenizer.convert_tokens_to_ids).save_pretrained(folder)
    pixels = {"shortest_edge": 4 * (_PATCH * _MERGE) ** 2, "longest_edge": MOST_PIXELS}
    for name, key, value in _PROCESSORS:
        processor = {
            key: value,
            "processor_class": "Qwen2_5_VLProcessor",
            "min_pixels": pixels["shortest_edge"],
            "max_pixels": pixels["longest_edge"],
            "size": pixels,
            "patch_size": _PATCH,
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


def _config(ids: object) -> Qwen2_5_VLConfig:
    assert callable(ids)
    start, turn = ids(words.END_OF_TEXT), ids(words.END_OF_TURN)
    config = Qwen2_5_VLConfig(
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
    config.architectures = ["Qwen2_5_VLForConditionalGeneration"]
    return config
