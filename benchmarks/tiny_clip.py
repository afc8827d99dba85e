"""A CLIP of a few thousand random weights: real classes and files, for where the published one is not to be had."""

from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTextConfig, CLIPVisionConfig

from rc_grpo.pocket.tokenizers import clip_tokenizer

WIDTH, PIXELS = 32, 32


def save_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """Write model, tokenizer and image processor as `transformers` lays them out; its scores mean nothing."""
    tokenizer = clip_tokenizer()
    size = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(seed)
    text = CLIPTextConfig(**size, **ends, vocab_size=len(tokenizer), projection_dim=WIDTH)
    vision = CLIPVisionConfig(**size, image_size=PIXELS, patch_size=8, projection_dim=WIDTH)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    ).eval()
    images = CLIPImageProcessor(
        size={"shortest_edge": PIXELS}, crop_size={"height": PIXELS, "width": PIXELS}, do_convert_rgb=True
    )
    model.save_pretrained(folder)
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
