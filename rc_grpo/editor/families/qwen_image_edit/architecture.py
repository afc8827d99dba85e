"""Qwen-Image-Edit's sizes, from its configuration files alone: projections by name, parameters, operations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_edit import full_size
from rc_grpo.editor.family import Architecture, Tokens
from rc_grpo.editor.files import model_source, naming_the_model
from rc_grpo.editor.stock.schedule import SCHEDULER, read_scheduler
from rc_grpo.editor.stock.source_size import STOCK_SOURCE

TEXT_OF_A_SENTENCE = 240
"""Tokens of an instruction of a sentence, with the 196 that stand for the source and what is around them."""

TEXT_OF_A_REFERENCE = 203
"""Tokens that stand for a further source, with its number."""

_STREAMS = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
_TEXT_STREAM = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out")


@dataclass(frozen=True)
class QwenArchitecture(Architecture):
    """Sizes of a Qwen-Image-Edit model.

    Attributes:
        scheduler: its scheduler's configuration.
    """

    scheduler: Mapping[str, Any]

    def tokens(self, editor: EditorConfig) -> Tokens:
        """Return the lengths of an edit: a sentence, the target, and sources of their own size."""
        image, source = (
            (side // self.token) ** 2 for side in (editor.resolution, editor.source_resolution or STOCK_SOURCE)
        )
        text = min(editor.text_tokens, TEXT_OF_A_SENTENCE) + TEXT_OF_A_REFERENCE * (editor.sources - 1)
        return Tokens(text, image, editor.sources * source, images=editor.sources)

    def forward_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the TFLOP of one pass of one image: of its projections, of its attention."""
        projections = 2 * 12 * self.width**2 * self.layers * tokens.total
        return projections / 1e12, 4 * tokens.total**2 * self.width * self.layers / 1e12


def read(editor: EditorConfig) -> QwenArchitecture:
    """Read a model's sizes from its configuration files, or return those of full size.

    Raises:
        ModelNotFoundError: they are not there.
    """
    if full_size.named(editor):
        return of_config(full_size.TRANSFORMER, full_size.TOKEN, SCHEDULER)
    with naming_the_model(editor):
        source, revision = model_source(editor), editor.revision
        config = QwenImageTransformer2DModel.load_config(source, subfolder="transformer", revision=revision)
        vae = AutoencoderKLQwenImage.load_config(source, subfolder="vae", revision=revision)
        scheduler = read_scheduler(source, revision)
    return of_config(config, 2 * 2 ** len(vae["temperal_downsample"]), scheduler)


def of_config(config: Mapping[str, Any], token: int, scheduler: Mapping[str, Any]) -> QwenArchitecture:
    """Return the sizes of a transformer of this configuration.

    Args:
        config: of ``QwenImageTransformer2DModel``.
        token: side of a token in pixels.
        scheduler: the scheduler's configuration.
    """
    layers, head = config["num_layers"], config["attention_head_dim"]
    width, text = config["num_attention_heads"] * head, config["joint_attention_dim"]
    into, out = config["in_channels"], config["patch_size"] ** 2 * config["out_channels"]
    projections = _projections(layers, width)
    weights = sum(rows * columns + rows for rows, columns in projections.values()) + layers * 4 * head
    # What leads in and out, the time's embedding, the last norm's modulation; all of them with a bias.
    around = ((width, into), (width, text), (width, 256), (width, width), (2 * width, width), (out, width))
    return QwenArchitecture(
        layers=layers,
        width=width,
        token=token,
        parameters=weights + text + sum(rows * columns + rows for rows, columns in around),
        encoders_gib=full_size.ENCODERS_GIB,
        projections=projections,
        scheduler=scheduler,
        kept=28.8,
    )


def _projections(layers: int, width: int) -> dict[str, tuple[int, int]]:
    in_block = dict.fromkeys((*_STREAMS, *_TEXT_STREAM), (width, width))
    for stream in ("img", "txt"):
        in_block |= {f"{stream}_mod.1": (6 * width, width)}
        in_block |= {f"{stream}_mlp.net.0.proj": (4 * width, width), f"{stream}_mlp.net.2": (width, 4 * width)}
    return {f"transformer_blocks.{index}.{name}": shape for index in range(layers) for name, shape in in_block.items()}
