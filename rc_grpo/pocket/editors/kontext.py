"""The pocket editor before training: FLUX.1 Kontext's classes and layout at seven million parameters."""

import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from rc_grpo.pocket.objects import IMAGE_SIZE
from rc_grpo.pocket.tokenizers import clip_tokenizer, t5_tokenizer

TEXT_WIDTH = 128
HEADS, HEAD_WIDTH = 6, 32
"""192 wide: a token's own 128 channels leave room for what is to be done with them."""
LATENT_CHANNELS = 32

GUIDANCE = 2.5
"""The one guidance value the transformer sees, in training and after."""


def build_vae() -> Any:
    """Return an untrained `AutoencoderKLHunyuanImage` of factor 8 and 32 channels: 128 pixels are 16x16 latents.

    Its shortcuts fold pixels into channels and back, without a parameter. An autoencoder that enlarges by repeating
    pixels has to learn what a linear projection of each patch knows.
    """
    vae = AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(32, 32, 64, 128),
        layers_per_block=0,
        spatial_compression_ratio=8,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
    )
    # Every residual branch starts as nothing, and the whole near a linear projection of patches.
    for name, module in vae.named_modules():
        if name.rsplit(".")[-1] in ("conv2", "proj"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    return vae


def build_transformer() -> Any:
    """Return an untrained `FluxTransformer2DModel`: 128 channels a token, 2 double and 4 single blocks, 192 wide."""
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(4, 14, 14),
        guidance_embeds=True,
    )
    # As in DiT: every block starts as the identity, which makes the early steps of training useful.
    modulations = [
        module.linear
        for name, module in transformer.named_modules()
        if "norm" in name.rsplit(".")[-1] and hasattr(module, "linear")
    ]
    for linear in (*modulations, transformer.proj_out):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return transformer


def build_pipeline(seed: int = 0) -> Any:
    """Return an untrained `FluxKontextPipeline`, tokenizers included; the same weights for the same seed."""
    torch.manual_seed(seed)
    clip_words, t5_words = clip_tokenizer(), t5_tokenizer()
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip_words),
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_attention_heads=4,
            num_hidden_layers=2,
            projection_dim=TEXT_WIDTH,
            bos_token_id=clip_words.bos_token_id,
            eos_token_id=clip_words.eos_token_id,
            pad_token_id=clip_words.pad_token_id,
            max_position_embeddings=clip_words.model_max_length,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5_words),
            d_model=TEXT_WIDTH,
            d_ff=2 * TEXT_WIDTH,
            d_kv=32,
            num_layers=2,
            num_heads=4,
            pad_token_id=t5_words.pad_token_id,
            eos_token_id=t5_words.eos_token_id,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            dropout_rate=0.0,
        )
    )
    # Kontext's own schedule (rc_grpo.algorithm.solver.kontext_sigmas computes the same numbers).
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=1.15,
        base_image_seq_len=256,
        max_image_seq_len=4096,
    )
    pipeline = FluxKontextPipeline(
        scheduler=scheduler,
        text_encoder=clip,
        tokenizer=clip_words,
        text_encoder_2=t5,
        tokenizer_2=t5_words,
        vae=build_vae(),
        transformer=build_transformer(),
    )
    for part in trainable(pipeline):
        part.eval()
    pipeline.vae.eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def trainable(pipeline: Any) -> tuple[torch.nn.Module, ...]:
    """Return what flow matching trains: the transformer and both text encoders."""
    return pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2


def save(pipeline: Any, folder: Path) -> None:
    """Write the pipeline in diffusers' layout, transformer and autoencoder in float16; the pipeline is left as it is.

    The text encoders stay float32: transformers loads a file in its own precision, diffusers in float32, and
    a pipeline of two precisions cannot run.
    """
    halves = {name: copy.deepcopy(getattr(pipeline, name)).half() for name in ("transformer", "vae")}
    FluxKontextPipeline(**{**pipeline.components, **halves}).save_pretrained(folder)
