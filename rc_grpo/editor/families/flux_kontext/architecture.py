"""FLUX.1 Kontext's sizes, from its configuration files alone: projections by name, parameters, operations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKL, FluxTransformer2DModel

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux_kontext import full_size
from rc_grpo.editor.family import Architecture, Tokens
from rc_grpo.editor.files import FULL_SIZE, model_source, naming_the_model
from rc_grpo.editor.stock.schedule import read_scheduler

ENCODERS_GIB = 9.3
"""T5-XXL, CLIP and VAE of FLUX.1 in bfloat16."""

_IN_BOTH = ("attn.to_q", "attn.to_k", "attn.to_v")
_IN_DOUBLE = (*_IN_BOTH, "attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")


@dataclass(frozen=True)
class KontextArchitecture(Architecture):
    """Sizes of a Kontext model.

    Attributes:
        scheduler: its scheduler's configuration.
    """

    scheduler: Mapping[str, Any]

    def tokens(self, editor: EditorConfig) -> Tokens:
        """Return the lengths of an edit: text slots, target, and one source of the target's size."""
        image = (editor.resolution // self.token) ** 2
        return Tokens(editor.text_tokens, image, image)

    def forward_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the TFLOP of one pass of one image: of its projections, of its attention."""
        projections = 2 * 12 * self.width**2 * self.layers * tokens.total
        return projections / 1e12, 4 * tokens.total**2 * self.width * self.layers / 1e12


def read(editor: EditorConfig) -> KontextArchitecture:
    """Read a model's sizes from its configuration files, or return those of full size.

    Raises:
        ModelNotFoundError: they are not there.
    """
    if editor.model == FULL_SIZE:
        sizes = {"num_attention_heads": 24, "attention_head_dim": 128}
        return of_config(full_size.BLOCKS | sizes, full_size.TOKEN)
    with naming_the_model(editor):
        source, revision = model_source(editor), editor.revision
        config = FluxTransformer2DModel.load_config(source, subfolder="transformer", revision=revision)
        vae = AutoencoderKL.load_config(source, subfolder="vae", revision=revision)
        scheduler = read_scheduler(source, revision)
    return of_config(config, 2 ** len(vae["block_out_channels"]), scheduler)


def of_config(
    config: Mapping[str, Any], token: int, scheduler: Mapping[str, Any] = full_size.SCHEDULER
) -> KontextArchitecture:
    """Return the sizes of a transformer of this configuration.

    Args:
        config: of ``FluxTransformer2DModel``.
        token: side of a token in pixels.
        scheduler: its scheduler's configuration.
    """
    double, single = config["num_layers"], config["num_single_layers"]
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return KontextArchitecture(
        layers=double + single,
        width=width,
        token=token,
        # Projections, and what modulates them; within 2 % of the whole of FLUX.1.
        parameters=width**2 * (double * (2 * 12 + 2 * 6) + single * (12 + 3)),
        encoders_gib=ENCODERS_GIB,
        projections=_projections(double, single, width),
        kept=13.5,
        scheduler=scheduler,
    )


def _projections(double: int, single: int, width: int) -> dict[str, tuple[int, int]]:
    in_double = dict.fromkeys(_IN_DOUBLE, (width, width))
    for stream in ("", "_context"):
        in_double |= {f"ff{stream}.net.0.proj": (4 * width, width), f"ff{stream}.net.2": (width, 4 * width)}
        in_double |= {f"norm1{stream}.linear": (6 * width, width)}
    in_single = dict.fromkeys(_IN_BOTH, (width, width))
    in_single |= {"proj_mlp": (4 * width, width), "proj_out": (width, 5 * width), "norm.linear": (3 * width, width)}
    blocks = [(f"transformer_blocks.{index}", in_double) for index in range(double)]
    blocks += [(f"single_transformer_blocks.{index}", in_single) for index in range(single)]
    return {f"{block}.{name}": shape for block, named in blocks for name, shape in named.items()}
