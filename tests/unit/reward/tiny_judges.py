"""Vision-language judges of a few hundred thousand random weights, and adapters for them; nothing is downloaded."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from reward_service.prompts import Family

_SPECIAL = ("endoftext", "im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
_WIDTH = 64
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_base(folder: Path, family: Family, seed: int = 0, shard: str = "5GB") -> Path:
    """Write a base in bfloat16, with everything that a server asks for."""
    tokenizer = _tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in _SPECIAL}
    torch.manual_seed(seed)
    model = _model(family, len(tokenizer), ids)
    model.generation_config = GenerationConfig(eos_token_id=[ids["im_end"], ids["endoftext"]], do_sample=True)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    _processor(family, tokenizer).save_pretrained(folder)
    return folder


def make_adapter(folder: Path, base: Path, seed: int = 1) -> Path:
    """Write a LoRA with random factors on the language model, the vision blocks and what joins the two."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        init_lora_weights=False,
        target_modules=r".*\.(q_proj|v_proj|o_proj|down_proj|qkv|linear_fc2|mlp\.2)",
        task_type="CAUSAL_LM",
    )
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.bfloat16)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=alphabet, merges=[], eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_tokens([AddedToken(f"<|{name}|>", special=True, normalized=False) for name in _SPECIAL])
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _model(family: Family, vocabulary: int, ids: dict[str, int]) -> Any:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 8192,
        "rope_parameters": rope,
        "tie_word_embeddings": False,
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": _WIDTH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    marks = {
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
        "tie_word_embeddings": False,
    }
    if family == "qwen2_5_vl":
        vision |= {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1]}
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **marks))
    rope["mrope_interleaved"] = True
    vision |= {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **marks))


def _processor(family: Family, tokenizer: Any) -> Any:
    patch = 14 if family == "qwen2_5_vl" else 16
    token = (2 * patch) ** 2
    images = {
        "patch_size": patch,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": 4 * token, "longest_edge": 64 * token},
    }
    if family == "qwen2_5_vl":
        video = Qwen2VLVideoProcessor(**images)
        return Qwen2_5_VLProcessor(Qwen2VLImageProcessor(**images), tokenizer, video, chat_template=_TEMPLATE)
    return Qwen3VLProcessor(
        Qwen2VLImageProcessor(**images), tokenizer, Qwen3VLVideoProcessor(**images), chat_template=_TEMPLATE
    )
