"""The pocket editor of FLUX.1 Kontext's classes and layout, at seven million parameters."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLHunyuanImage,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from rc_grpo.editor.families.flux_kontext.transformer import position_ids, predict
from rc_grpo.pocket import MAX_SEQUENCE_LENGTH, MODEL_PATH
from rc_grpo.pocket.editors.protocol import GRID, LATENT_CHANNELS
from rc_grpo.pocket.objects import IMAGE_SIZE
from rc_grpo.pocket.tokenizers import clip_tokenizer, t5_tokenizer

TEXT_WIDTH = 128
HEADS, HEAD_WIDTH = 6, 32
"""192 wide: a token's own 128 channels leave room for what is to be done with them."""

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


class KontextField(torch.nn.Module):
    """The trainable parts as one module, from token ids to velocity."""

    ids: Tensor

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = trainable(pipeline)
        ids = position_ids(GRID, GRID, pipeline.transformer.device, torch.float32)
        self.register_buffer("ids", ids, persistent=False)

    def forward(self, noisy: Tensor, reference: Tensor, sigma: Tensor, clip: Tensor, t5: Tensor) -> Tensor:
        """Return the velocity ``[B, 64, 128]`` at noisy targets ``[B, 64, 128]`` and sigmas ``[B]``."""
        pooled, prompt = self.clip(clip).pooler_output, self.t5(t5).last_hidden_state
        guidance = torch.full_like(sigma, GUIDANCE)
        return predict(self.transformer, noisy, reference, sigma, prompt, pooled, guidance, self.ids)


class Kontext:
    """The `rc_grpo.pocket.editors.protocol.PocketEditor` of ``FluxKontextPipeline``."""

    name = "kontext"
    pipeline = "FluxKontextPipeline"
    folder = MODEL_PATH
    shift = math.exp(0.5 + (1.15 - 0.5) / (4096 - 256) * (GRID * GRID - 256))

    def build_vae(self) -> Any:
        """See `build_vae`."""
        return build_vae()

    def build_pipeline(self, seed: int) -> Any:
        """See `build_pipeline`."""
        return build_pipeline(seed)

    def measure(self, vae: Any, means: Tensor) -> None:
        """Leave the latents' shift and scale in the autoencoder's configuration."""
        vae.register_to_config(shift_factor=float(means.mean()), scaling_factor=float(1 / means.std()))

    def tokens(self, vae: Any, means: Tensor) -> Tensor:
        """Return them shifted, scaled and packed as FLUX.1 does."""
        scaled = (means - vae.config.shift_factor) * vae.config.scaling_factor
        packed: Tensor = FluxKontextPipeline._pack_latents(scaled, *scaled.shape)
        return packed

    def read(self, pipeline: Any, instructions: Sequence[str]) -> tuple[Tensor, ...]:
        """Return CLIP's ids ``[B, L]``, cut to the longest instruction, and T5's ``[B, MAX_SEQUENCE_LENGTH]``."""
        texts = list(instructions)
        clip = pipeline.tokenizer(texts, padding="longest", return_tensors="pt").input_ids
        t5 = pipeline.tokenizer_2(
            texts, padding="max_length", max_length=MAX_SEQUENCE_LENGTH, return_tensors="pt"
        ).input_ids
        return clip, t5

    def field(self, pipeline: Any) -> KontextField:
        """Return the trainable parts as one module."""
        return KontextField(pipeline)

    def install(self, pipeline: Any, field: Any) -> None:
        """Put a field's modules into a pipeline."""
        pipeline.register_modules(transformer=field.transformer, text_encoder=field.clip, text_encoder_2=field.t5)

    def save(self, pipeline: Any, folder: Path) -> None:
        """Write transformer and autoencoder in float16; the pipeline is left as it is.

        The text encoders stay float32: transformers loads a file in its own precision, diffusers in float32, and
        a pipeline of two precisions cannot run.
        """
        halves = {name: copy.deepcopy(getattr(pipeline, name)).half() for name in ("transformer", "vae")}
        FluxKontextPipeline(**{**pipeline.components, **halves}).save_pretrained(folder)

    def edit(
        self, pipeline: Any, source: Image.Image, instruction: str, noise: Tensor, steps: int
    ) -> NDArray[np.float32]:
        """Edit a picture once for each noise."""
        images: NDArray[np.float32] = pipeline(
            image=[source] * len(noise),
            prompt=[instruction] * len(noise),
            latents=noise.to(pipeline.device),
            height=IMAGE_SIZE,
            width=IMAGE_SIZE,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            max_sequence_length=MAX_SEQUENCE_LENGTH,
            max_area=IMAGE_SIZE**2,
            _auto_resize=False,
            output_type="np",
        ).images
        return images


EDITOR = Kontext()
