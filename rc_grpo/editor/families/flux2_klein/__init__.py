"""FLUX.2 klein: the base models for training, the distilled ones to roll out and evaluate.

Importing this loads no model code; the family's other modules are imported by whoever asks for them.
"""

from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import Architecture, Body, Codec, Guidance, TextCounter
from rc_grpo.editor.files import model_source, naming_the_model
from rc_grpo.images import Pixels


class Flux2Klein:
    """The `rc_grpo.editor.family.Family` of ``Flux2KleinPipeline``."""

    name = "flux2-klein"
    models = frozenset({"full-size-klein-4b", "full-size-klein-9b"})
    hub_ids = MappingProxyType(
        {
            "black-forest-labs/FLUX.2-klein-base-4B": "full-size-klein-4b",
            "black-forest-labs/FLUX.2-klein-base-9B": "full-size-klein-9b",
            "black-forest-labs/FLUX.2-klein-4B": "full-size-klein-4b",
            "black-forest-labs/FLUX.2-klein-9B": "full-size-klein-9b",
        }
    )
    pipeline = "Flux2KleinPipeline"
    guidance: Guidance = "cfg"
    source_resolution: int | None = None

    def architecture(self, editor: EditorConfig) -> Architecture:
        """Read a model's sizes from its configuration files, or return those of full size."""
        from rc_grpo.editor.families.flux2_klein.architecture import read

        return read(editor)

    def text_counter(self, editor: EditorConfig) -> TextCounter:
        """Load the tokenizer alone."""
        from rc_grpo.editor.families.flux2_klein.text import KleinText

        return KleinText.load(editor).length

    def load_transformer(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the transformer alone."""
        from diffusers import Flux2Transformer2DModel

        from rc_grpo.editor.families.flux2_klein import full_size

        if sizes := full_size.named(editor):
            return full_size.build_transformer(sizes, device, dtype)  # type: ignore[no-any-return]
        with naming_the_model(editor):
            transformer: Any = Flux2Transformer2DModel.from_pretrained(
                model_source(editor), subfolder="transformer", revision=editor.revision, dtype=dtype
            )
        return transformer.to(device)  # type: ignore[no-any-return]

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out."""
        from diffusers import Flux2KleinPipeline

        from rc_grpo.editor.families.flux2_klein import full_size

        if sizes := full_size.named(editor):
            return full_size.build_pipeline(sizes, device, dtype, **components)
        with naming_the_model(editor):
            return Flux2KleinPipeline.from_pretrained(
                model_source(editor), revision=editor.revision, dtype=dtype, **components
            ).to(device)

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap a transformer."""
        from rc_grpo.editor.families.flux2_klein.architecture import read
        from rc_grpo.editor.families.flux2_klein.transformer import KleinBody

        return KleinBody(transformer, editor, read(editor))

    def codec(self, pipeline: Any, editor: EditorConfig, *, offload: bool) -> Codec:
        """Wrap the text encoder and the VAE of a pipeline."""
        from rc_grpo.editor.families.flux2_klein.codec import KleinCodec

        return KleinCodec(pipeline, editor, offload=offload)

    def edit(
        self, pipeline: Any, editor: EditorConfig, source: Pixels, instruction: str, *, steps: int, seed: int
    ) -> Pixels:
        """Edit an image with the stock pipeline, at its own size."""
        from rc_grpo.editor.families.flux2_klein.codec import edit

        return edit(pipeline, editor, source, instruction, steps=steps, seed=seed)


FAMILY = Flux2Klein()
