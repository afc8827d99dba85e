"""FLUX.2 klein's sizes, from its configuration files alone: projections by name, parameters, operations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from diffusers import (
    AutoencoderKLFlux2,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux2_klein import full_size
from rc_grpo.editor.family import Architecture, Guidance, Tokens
from rc_grpo.editor.files import model_source, naming_the_model
from rc_grpo.editor.stock.schedule import read_scheduler

LARGEST_SOURCE = 1024 * 1024
"""Pixels of a source image that the pipeline takes as it is; a larger one is made smaller."""

KV_PIPELINE = "Flux2KleinKVPipeline"

_STREAMS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
_TEXT_STREAM = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")
FUSED = "attn.to_qkv_mlp_proj"


@dataclass(frozen=True)
class KleinArchitecture(Architecture):
    """Sizes of a klein model.

    Attributes:
        guidance: ``none`` of a distilled model.
        shares_prefix: its sources see themselves alone, and are the prefix; text sees the target.
        scheduler: its scheduler's configuration.
    """

    guidance: Guidance
    scheduler: Mapping[str, Any]

    def tokens(self, editor: EditorConfig) -> Tokens:
        """Return the lengths of an edit: text slots, target, and sources of the target's size up to a megapixel."""
        image = (editor.resolution // self.token) ** 2
        sources = editor.sources * min(image, LARGEST_SOURCE // self.token**2)
        prefix = sources if self.shares_prefix and editor.prefix == "shared" else 0
        return Tokens(editor.text_tokens, image, sources, prefix, editor.sources)

    def forward_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the TFLOP of one pass of one image: of its projections, of its attention."""
        projections = 2 * 13 * self.width**2 * self.layers * (tokens.total - tokens.prefix)
        of_sources = tokens.sources * (tokens.sources if self.shares_prefix else tokens.total)
        pairs = (tokens.text + tokens.target) * tokens.total + (0 if tokens.prefix else of_sources)
        return projections / 1e12, 4 * pairs * self.width * self.layers / 1e12

    def prefill_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the same of sources alone, where they are a prefix."""
        return self.forward_tflop(replace(tokens, text=0, target=0, prefix=0)) if tokens.prefix else (0.0, 0.0)


def read(editor: EditorConfig) -> KleinArchitecture:
    """Read a model's sizes from its configuration files, or return those of full size.

    Raises:
        ModelNotFoundError: they are not there.
    """
    if sizes := full_size.size_of(editor):
        kv = editor.model == full_size.KV_NAME
        return of_config(
            sizes.transformer, full_size.TOKEN, encoders_gib=sizes.encoders_gib, distilled=kv, shares_prefix=kv
        )
    with naming_the_model(editor):
        source, revision = model_source(editor), editor.revision
        index = Flux2KleinPipeline.load_config(source, revision=revision)
        config = Flux2Transformer2DModel.load_config(source, subfolder="transformer", revision=revision)
        vae = AutoencoderKLFlux2.load_config(source, subfolder="vae", revision=revision)
        scheduler = read_scheduler(source, revision)
    # An encoder's states of three layers side by side are what the transformer reads.
    size = full_size.KLEIN_4B if config["joint_attention_dim"] <= 7680 else full_size.KLEIN_9B
    return of_config(
        config,
        2 ** len(vae["block_out_channels"]),
        encoders_gib=size.encoders_gib,
        distilled=bool(index.get("is_distilled", index["_class_name"] == KV_PIPELINE)),
        shares_prefix=index["_class_name"] == KV_PIPELINE,
        scheduler=scheduler,
    )


def of_config(
    config: Mapping[str, Any],
    token: int,
    *,
    encoders_gib: float,
    distilled: bool = False,
    shares_prefix: bool = False,
    scheduler: Mapping[str, Any] = full_size.SCHEDULER,
) -> KleinArchitecture:
    """Return the sizes of a transformer of this configuration.

    Args:
        config: of ``Flux2Transformer2DModel``.
        token: side of a token in pixels.
        encoders_gib: of text encoder and VAE in bfloat16.
        distilled: the model makes an edit in a few steps without guidance.
        shares_prefix: it is the KV variant.
        scheduler: its scheduler's configuration.
    """
    double, single = config["num_layers"], config["num_single_layers"]
    width = config["num_attention_heads"] * config["attention_head_dim"]
    into, text = config["in_channels"], config["joint_attention_dim"]
    # Three modulations that all blocks share, the time's embedding, and what leads in and out.
    shared = width * (15 * width + 3 * width + config.get("timestep_guidance_channels", 256) + 2 * into + text)
    projections = _projections(double, single, width)
    norms = (4 * double + 2 * single) * config["attention_head_dim"]
    return KleinArchitecture(
        layers=double + single,
        width=width,
        token=token,
        parameters=sum(out * inner for out, inner in projections.values()) + shared + norms,
        encoders_gib=encoders_gib,
        projections=projections,
        attention_rows={name: 3 * width for name in projections if name.endswith(FUSED)},
        guidance="none" if distilled else "cfg",
        shares_prefix=shares_prefix,
        scheduler=scheduler,
        kept=24.5,
    )


def _projections(double: int, single: int, width: int) -> dict[str, tuple[int, int]]:
    in_double = dict.fromkeys((*_STREAMS, *_TEXT_STREAM), (width, width))
    for stream in ("ff", "ff_context"):
        in_double |= {f"{stream}.linear_in": (6 * width, width), f"{stream}.linear_out": (width, 3 * width)}
    in_single = {FUSED: (9 * width, width), "attn.to_out": (width, 4 * width)}
    blocks = [(f"transformer_blocks.{index}", in_double) for index in range(double)]
    blocks += [(f"single_transformer_blocks.{index}", in_single) for index in range(single)]
    return {f"{block}.{name}": shape for block, named in blocks for name, shape in named.items()}
