"""FLUX.1 Kontext, and whatever has its classes: the packaged pocket editor, and the architecture at full size.

Importing this loads no model code; the family's other modules are imported by whoever asks for them.
"""

from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import Architecture, Body, Codec, Guidance, TextCounter
from rc_grpo.editor.files import FULL_SIZE, POCKET, model_source, naming_the_model
from rc_grpo.images import Pixels


class FluxKontext:
    """The `rc_grpo.editor.family.Family` of ``FluxKontextPipeline``."""

    name = "flux-kontext"
    models = frozenset({POCKET, FULL_SIZE})
    hub_ids = MappingProxyType({"black-forest-labs/FLUX.1-Kontext-dev": FULL_SIZE})
    pipeline = "FluxKontextPipeline"
    guidance: Guidance = "embedded"
    source_resolution: int | None = None

    def architecture(self, editor: EditorConfig) -> Architecture:
        """Read a model's sizes from its configuration files, or return those of full size."""
        from rc_grpo.editor.families.flux_kontext.architecture import read

        return read(editor)

    def text_counter(self, editor: EditorConfig) -> TextCounter:
        """Load the tokenizers alone."""
        from rc_grpo.editor.families.flux_kontext.text import KontextTextCounter

        return KontextTextCounter.load(editor)

    def load_transformer(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the transformer alone."""
        from diffusers import FluxTransformer2DModel

        from rc_grpo.editor.families.flux_kontext import full_size

        if editor.model == FULL_SIZE:
            return full_size.build_transformer(device, dtype)  # type: ignore[no-any-return]
        with naming_the_model(editor):
            transformer: Any = FluxTransformer2DModel.from_pretrained(
                model_source(editor), subfolder="transformer", revision=editor.revision, dtype=dtype
            )
        return transformer.to(device)  # type: ignore[no-any-return]

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out."""
        from diffusers import FluxKontextPipeline

        from rc_grpo.editor.families.flux_kontext import full_size

        if editor.model == FULL_SIZE:
            return full_size.build_pipeline(device, dtype, **components)
        with naming_the_model(editor):
            return FluxKontextPipeline.from_pretrained(
                model_source(editor), revision=editor.revision, dtype=dtype, **components
            ).to(device)

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap a transformer."""
        from rc_grpo.editor.families.flux_kontext.transformer import KontextBody

        return KontextBody(transformer, editor, self.architecture(editor).token)

    def codec(self, pipeline: Any, editor: EditorConfig, *, offload: bool) -> Codec:
        """Wrap the text encoders and the VAE of a pipeline."""
        from rc_grpo.editor.families.flux_kontext.codec import KontextCodec

        return KontextCodec(pipeline, editor, offload=offload)

    def edit(
        self, pipeline: Any, editor: EditorConfig, source: Pixels, instruction: str, *, steps: int, seed: int
    ) -> Pixels:
        """Edit an image with the stock pipeline, at its own size."""
        from rc_grpo.editor.families.flux_kontext.codec import edit

        return edit(pipeline, editor, source, instruction, steps=steps, seed=seed)


FAMILY = FluxKontext()
