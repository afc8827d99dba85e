"""FLUX.1 Kontext's architecture with random weights: what to measure on where the real weights are not at hand.

A forward pass costs what it costs with the real ones, and building the model on a GPU takes a second. It is what
``editor.model: full-size`` names. Its edits are noise.
"""

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxKontextPipeline, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.stock.random_weights import FullSize, assembled, random_weights
from rc_grpo.pocket import MODEL_PATH

TOKEN = 16
"""Side of a token in pixels."""

BLOCKS = {"num_layers": 19, "num_single_layers": 38}
"""Everything else of FLUX.1's transformer is diffusers' default, but for the guidance that it embeds."""

SCHEDULER = MappingProxyType(
    {
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "time_shift_type": "exponential",
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
    }
)
"""The published scheduler, as far as it says the levels."""

_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_CLIP = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_T5 = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_heads": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
}


def named(editor: EditorConfig) -> FullSize | None:
    """Return this architecture where ``editor.model`` names it and no weights."""
    return FullSize(build_transformer, build_pipeline) if editor.model == FULL_SIZE else None


def build_transformer(device: torch.device, dtype: torch.dtype, **changes: Any) -> FluxTransformer2DModel:
    """Build the 12-billion-parameter transformer on a device; the same weights every time there.

    Args:
        device: where; ``meta`` builds shapes alone.
        dtype: of the weights.
        changes: to the architecture, such as ``num_layers``.
    """
    default = {"guidance_embeds": True} | BLOCKS
    return random_weights(lambda: FluxTransformer2DModel(**default | changes), device, dtype)


def build_pipeline(device: torch.device, dtype: torch.dtype, **components: Any) -> FluxKontextPipeline:
    """Build text encoders and VAE; tokenizers are the pocket editor's. A component given is taken as it is."""
    makers: dict[str, Callable[[], Any]] = {
        "transformer": partial(build_transformer, device, dtype),
        "vae": lambda: random_weights(lambda: AutoencoderKL(**_VAE), device, dtype),
        "text_encoder": lambda: random_weights(lambda: CLIPTextModel(CLIPTextConfig(**_CLIP)), device, dtype),
        "text_encoder_2": lambda: random_weights(lambda: T5EncoderModel(T5Config(**_T5)), device, dtype),
        "tokenizer": partial(CLIPTokenizer.from_pretrained, MODEL_PATH, subfolder="tokenizer"),
        "tokenizer_2": partial(T5TokenizerFast.from_pretrained, MODEL_PATH, subfolder="tokenizer_2"),
        "scheduler": partial(FlowMatchEulerDiscreteScheduler, **SCHEDULER),
    }
    return assembled(FluxKontextPipeline, makers, components)
