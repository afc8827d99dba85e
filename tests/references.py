"""Other people's editors at their smallest: real diffusers classes with random weights, as folders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from rc_grpo.images import encode_png
from rc_grpo.messages import EditTask
from rc_grpo.pocket.tokenizers import clip_tokenizer
from tests.families import KLEIN, QWEN, randomise, source

LATENT = 4
FACTOR = 2
"""Pixels a side of a latent of the small autoencoder."""


@dataclass(frozen=True)
class Small:
    """A pipeline.

    Attributes:
        name: of its folder.
        class_name: that its index names.
        channels: of its U-Net's input; 0 where a family's small model is taken.
    """

    name: str
    class_name: str
    channels: int = 0


PIX2PIX = Small("pix2pix", "StableDiffusionInstructPix2PixPipeline", 2 * LATENT)
TEXT = Small("text-to-image", "StableDiffusionPipeline", LATENT)
SDEDIT = Small("sdedit", "StableDiffusionImg2ImgPipeline", LATENT)
INPAINT = Small("inpaint", "StableDiffusionInpaintPipeline", 2 * LATENT + 1)
UNETS = (PIX2PIX, TEXT, SDEDIT, INPAINT)


def write_small(folder: Path, small: Small) -> Path:
    """Write one of `UNETS` into a folder of its own in there; return that."""
    tokenizer = clip_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=32, in_channels=small.channels, out_channels=LATENT, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        latent_channels=LATENT, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, sample_size=64,
        down_block_types=("DownEncoderBlock2D",) * FACTOR, up_block_types=("UpDecoderBlock2D",) * FACTOR,
    )  # fmt: skip
    pipeline = getattr(diffusers, small.class_name)(
        vae=randomise(vae, 1),
        text_encoder=randomise(CLIPTextModel(text), 2),
        tokenizer=tokenizer,
        unet=randomise(unet, 3),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / small.name)
    return folder / small.name


def write_all(folder: Path) -> Path:
    """Write the U-Nets, and the small models of the families that have none in the package."""
    for small in UNETS:
        write_small(folder, small)
    for row in (KLEIN, QWEN):
        assert row.make is not None
        row.make(folder / row.name)
    return folder


def task(name: str = "t", *, height: int = 64, width: int = 64, columns: slice = slice(32), **changed: Any) -> EditTask:
    """A photograph-like source, and a mask over some of its columns."""
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[:, columns] = 255
    fields = {
        "source": encode_png(source(height, width)),
        "mask": encode_png(mask.numpy()),
        "instruction": "make it red",
    }
    return EditTask(task_id=name, kind="replace", **(fields | changed))
