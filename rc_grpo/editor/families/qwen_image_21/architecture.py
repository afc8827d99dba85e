"""Qwen-Image-2.1's sizes, from its configuration files alone: projections by name, parameters, operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffusers import QwenImage21Pipeline, QwenImage21Transformer2DModel

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_21 import full_size
from rc_grpo.editor.family import Architecture, Tokens
from rc_grpo.editor.files import model_source, naming_the_model
from rc_grpo.editor.recording import Direction
from rc_grpo.editor.stock.schedule import SCHEDULER, read_scheduler
from rc_grpo.editor.stock.source_size import STOCK_SOURCE

TEXT_OF_A_SENTENCE = 48
"""Tokens of an instruction of a sentence in its template, those that stand for the source left out."""

TEXT_OF_A_REFERENCE = 6
"""Tokens around a further source."""

MODULES = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("img_mlp.proj", "img_mlp.gate_layer", "img_mlp.out"),
)
"""Of a block, in which every projection is one of these."""

TO_TEXT: frozenset[Direction] = frozenset({"to_text"})
"""Text never sees the target: attention from the target to the text is all that there is."""

SIDE = 2
"""An image has sides of a multiple of so many tokens: the text encoder has a token for every 2x2 of them."""


@dataclass(frozen=True)
class Qwen21Architecture(Architecture):
    """Sizes of a Qwen-Image-2.1 model.

    Attributes:
        scheduler: its scheduler's configuration.
        sample_sigmas: levels that its pipeline always samples by, ahead of the scheduler's shift; None: even ones.
    """

    scheduler: Mapping[str, Any]
    sample_sigmas: Sequence[float] | None

    def tokens(self, editor: EditorConfig) -> Tokens:
        """Return the lengths of an edit: a sentence, the target, and sources of their own size."""
        image, source = (
            (side // self.token) ** 2 for side in (editor.resolution, editor.source_resolution or STOCK_SOURCE)
        )
        text = min(editor.text_tokens, TEXT_OF_A_SENTENCE) + TEXT_OF_A_REFERENCE * (editor.sources - 1)
        sources = editor.sources * source
        return Tokens(text, image, sources, text + sources if editor.prefix == "shared" else 0, editor.sources)

    def forward_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the TFLOP of one pass of one image: of its projections, of its attention."""
        weights = sum(out * width for out, width in self.projections.values())
        # The target sees all; what is ahead of it sees itself, a source the ones ahead and not the text behind it.
        of_sources = tokens.sources**2 * (tokens.images + 1) / (2 * tokens.images)
        ahead = tokens.text * (tokens.text + tokens.sources) + of_sources
        pairs = tokens.target * tokens.total + (0 if tokens.prefix else ahead)
        projections = 2 * weights * (tokens.total - tokens.prefix)
        return projections / 1e12, 4 * pairs * self.width * self.layers / 1e12


def read(editor: EditorConfig) -> Qwen21Architecture:
    """Read a model's sizes from its configuration files, or return those of full size.

    Raises:
        ModelNotFoundError: they are not there.
        ValueError: its text and source are modulated at the target's time.
    """
    if full_size.named(editor):
        return of_config(full_size.TRANSFORMER, SCHEDULER)
    with naming_the_model(editor):
        source, revision = model_source(editor), editor.revision
        index = QwenImage21Pipeline.load_config(source, revision=revision)
        config = QwenImage21Transformer2DModel.load_config(source, subfolder="transformer", revision=revision)
        scheduler = read_scheduler(source, revision)
    return of_config(config, scheduler, index.get("sample_sigmas"))


def of_config(
    config: Mapping[str, Any], scheduler: Mapping[str, Any], sample_sigmas: Sequence[float] | None = None
) -> Qwen21Architecture:
    """Return the sizes of a transformer of this configuration.

    Args:
        config: of ``QwenImage21Transformer2DModel``.
        scheduler: the scheduler's configuration.
        sample_sigmas: of the pipeline's configuration.

    Raises:
        ValueError: its text and source are modulated at the target's time.
    """
    if not config.get("causal_condition", True):
        raise ValueError(
            "this model has causal_condition off: its text and source follow the target's noise level, which this "
            "family takes to be none of theirs"
        )
    layers, head = config["num_layers"], config["attention_head_dim"]
    width, text = config["num_attention_heads"] * head, config["context_in_dim"]
    into, out = config["in_channels"], config["out_channels"]
    projections = _projections(layers, width, config["mlp_ratio"] * width)
    # What leads in and out, the time's embedding, the modulation that all blocks share, the last norm's; no biases.
    around = width * (into + out + (text + width) + (256 + width) + 4 * width + width)
    return Qwen21Architecture(
        layers=layers,
        width=width,
        token=full_size.TOKEN,
        parameters=sum(rows * columns for rows, columns in projections.values()) + around + text + 2 * layers * head,
        encoders_gib=full_size.ENCODERS_GIB,
        projections=projections,
        directions=TO_TEXT,
        side=SIDE,
        shares_prefix=True,
        scheduler=scheduler,
        sample_sigmas=sample_sigmas,
        kept=28.6,
    )


def _projections(layers: int, width: int, hidden: int) -> dict[str, tuple[int, int]]:
    in_block = dict.fromkeys(MODULES, (width, width))
    in_block |= {"img_mlp.proj": (hidden, width), "img_mlp.gate_layer": (hidden, width), "img_mlp.out": (width, hidden)}
    return {f"transformer_blocks.{index}.{name}": shape for index in range(layers) for name, shape in in_block.items()}
