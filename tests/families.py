"""The families of editors at their smallest, one row each: what every family's promises are tested on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from rc_grpo.config import EditorConfig, LoraSettings
from rc_grpo.editor.families.qwen_image_21 import full_size as qwen_21_full_size
from rc_grpo.editor.families.qwen_image_edit import full_size as qwen_full_size
from rc_grpo.editor.stock.chat_text import byte_level_tokenizer, special_tokens
from rc_grpo.editor.stock.schedule import SCHEDULER
from rc_grpo.images import Pixels

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@dataclass(frozen=True)
class Row:
    """A family.

    Attributes:
        name: of the family.
        make: writes a small model into a folder; None for one that comes with the package.
        model: its short name, where it has one.
        targets: of a LoRA on all kinds of projections that the family's packaged configuration names.
        guidances: that the family is tried at.
        fused: targets of which attention has a part alone.
        within: how far the stock pipeline's states may be from ours: 0 but for a schedule kept in float64.
        layers: of the small model.
        source_resolution: at which it is shown a source, where the family sizes it apart.
        text_tokens: enough for a short instruction in the family's template.
        text_varies: a text is bound at its true length.
        calls: of the attention kernel in a block, the last of which are the target's queries.
    """

    name: str
    make: Callable[[Path], None] | None
    model: str
    targets: tuple[str, ...]
    guidances: tuple[float, ...]
    fused: tuple[str, ...] = ()
    within: float = 0.0
    layers: int = 0
    source_resolution: int | None = None
    text_tokens: int = 96
    text_varies: bool = False
    calls: int = 1

    def editor(self, folder: Path, guidance: float | None = None) -> EditorConfig:
        """Return its configuration; the small model is in a folder of its own in there."""
        return EditorConfig(
            model=self.model or str(folder / self.name),
            dtype="float32",
            device="cpu",
            resolution=64,
            guidance=self.guidances[-1] if guidance is None else guidance,
            text_tokens=self.text_tokens,
            source_resolution=self.source_resolution,
            lora=LoraSettings(rank=4, alpha=8, targets=self.targets),
        )


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give a model weights under which every part of it matters, norms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim >= 2:
                weight.copy_(0.9 * drawn / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * drawn + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return model.eval()


def _klein(folder: Path, pipeline: Any = Flux2KleinPipeline) -> None:
    encoder = Qwen3Config(
        vocab_size=320, hidden_size=8, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, max_position_embeddings=256,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        block_out_channels=(8,) * 4, layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=64
    )
    vae.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=False,
    )  # fmt: skip
    pipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        randomise(vae, 1),
        randomise(Qwen3ForCausalLM(encoder), 2),
        byte_level_tokenizer(),
        randomise(transformer, 3),
    ).save_pretrained(folder)


def _qwen(folder: Path) -> None:
    tokenizer = byte_level_tokenizer()
    encoder = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 320, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 4], "rope_theta": 1e6},
        },
        vision_config={
            "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 24,
            "window_size": 112, "fullatt_block_indexes": [0],
        },
        **special_tokens(tokenizer),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1] * 4, num_res_blocks=1, latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[1.1, 1.2, 1.3, 1.4],
    )  # fmt: skip
    transformer = QwenImageTransformer2DModel(
        in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, axes_dims_rope=(4, 6, 6), zero_cond_t=True,
    )  # fmt: skip
    QwenImageEditPlusPipeline(
        FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        randomise(vae, 1),
        randomise(Qwen2_5_VLForConditionalGeneration(encoder), 2),
        tokenizer,
        qwen_full_size.processor(tokenizer),
        randomise(transformer, 3),
    ).save_pretrained(folder)


def _qwen_21(folder: Path) -> None:
    tokenizer = byte_level_tokenizer()
    encoder = Qwen3VLConfig(
        text_config={
            "vocab_size": 320, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 12, "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 5e6},
        },
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 24,
            "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
        },
        **special_tokens(tokenizer),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=4, z_dim=8, dim_mult=[1] * 5, num_res_blocks=1,
        latents_mean=[0.1 * number for number in range(8)], latents_std=[1 + 0.1 * number for number in range(8)],
    )  # fmt: skip
    transformer = QwenImage21Transformer2DModel(
        in_channels=8, out_channels=8, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        context_in_dim=24, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    QwenImage21Pipeline(
        FlowMatchEulerDiscreteScheduler(**SCHEDULER),
        randomise(vae, 1),
        randomise(Qwen3VLForConditionalGeneration(encoder), 2),
        qwen_21_full_size.processor(tokenizer, seen_at_least=32 * 32),
        randomise(transformer, 3),
    ).save_pretrained(folder)


KONTEXT = Row("flux-kontext", None, "pocket", ATTENTION, (2.5,), within=1e-5, layers=6, text_tokens=24)
KLEIN = Row(
    "flux2-klein",
    _klein,
    "",
    (*ATTENTION, "to_qkv_mlp_proj", "attn.to_out"),
    (1.0, 4.0),
    fused=("to_qkv_mlp_proj",),
    layers=3,
)
QWEN = Row(
    "qwen-image-edit",
    _qwen,
    "",
    (*ATTENTION, "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    (1.0, 4.0),
    layers=2,
    source_resolution=64,
    text_tokens=800,
    text_varies=True,
)
QWEN_21 = Row(
    "qwen-image-21",
    _qwen_21,
    "",
    ("to_q", "to_k", "to_v", "to_out.0", "img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out"),
    (1.0, 4.0),
    layers=2,
    source_resolution=64,
    text_tokens=160,
    text_varies=True,
    calls=4,
)
KLEIN_KV = replace(KLEIN, name="flux2-klein-kv", make=partial(_klein, pipeline=Flux2KleinKVPipeline), guidances=(1.0,))
"""Not among `ROWS`: its transformer is klein's."""
ROWS = (KONTEXT, KLEIN, QWEN, QWEN_21)


def write_models(folder: Path) -> Path:
    """Write the small models of all rows that have none in the package."""
    for row in ROWS:
        if row.make is not None:
            row.make(folder / row.name)
    return folder


@cache
def source(height: int = 64, width: int = 64) -> Pixels:
    """A photograph-like picture: smooth colours and an edge."""
    rows, columns = np.mgrid[0:height, 0:width]
    red, green = 255 * rows / height, 255 * columns / width
    return np.stack([red, green, np.where(rows > columns, 200, 40)], axis=-1).astype(np.uint8)


def trained(denoiser: Any, seed: int = 3, size: float = 0.05) -> dict[str, torch.Tensor]:
    """Return LoRA weights that act, as a training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight.detach() + size * torch.randn(weight.shape, generator=generator)
        for name, weight in denoiser.policy.weights().items()
    }
