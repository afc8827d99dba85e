"""Qwen-Image-Edit 2511 and 2509, and whatever loads as they do, such as FireRed-Image-Edit.

Importing this loads no model code; the family's other modules are imported by whoever asks for them.
"""

from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_edit.sizes import STOCK_SOURCE
from rc_grpo.editor.family import Architecture, Body, Codec, Guidance, TextCounter
from rc_grpo.editor.files import model_source, naming_the_model
from rc_grpo.images import Pixels


class QwenImageEdit:
    """The `rc_grpo.editor.family.Family` of ``QwenImageEditPlusPipeline``."""

    name = "qwen-image-edit"
    models = frozenset({"full-size-qwen-image-edit"})
    hub_ids = MappingProxyType(
        {
            "Qwen/Qwen-Image-Edit-2511": "full-size-qwen-image-edit",
            "Qwen/Qwen-Image-Edit-2509": "full-size-qwen-image-edit",
        }
    )
    pipeline = "QwenImageEditPlusPipeline"
    guidance: Guidance = "cfg"
    source_resolution: int | None = STOCK_SOURCE

    def architecture(self, editor: EditorConfig) -> Architecture:
        """Read a model's sizes from its configuration files, or return those of full size."""
        from rc_grpo.editor.families.qwen_image_edit.architecture import read

        return read(editor)

    def text_counter(self, editor: EditorConfig) -> TextCounter:
        """Load the tokenizer alone."""
        from rc_grpo.editor.families.qwen_image_edit.text import QwenText

        return QwenText.load(editor).length

    def load_transformer(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the transformer alone."""
        from diffusers import QwenImageTransformer2DModel

        from rc_grpo.editor.families.qwen_image_edit import full_size

        if full_size.is_named(editor):
            return full_size.build_transformer(device, dtype)  # type: ignore[no-any-return]
        with naming_the_model(editor):
            transformer: Any = QwenImageTransformer2DModel.from_pretrained(
                model_source(editor), subfolder="transformer", revision=editor.revision, dtype=dtype
            )
        return transformer.to(device)  # type: ignore[no-any-return]

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out."""
        from diffusers import QwenImageEditPlusPipeline

        from rc_grpo.editor.families.qwen_image_edit import full_size

        if full_size.is_named(editor):
            return full_size.build_pipeline(device, dtype, **components)
        with naming_the_model(editor):
            return QwenImageEditPlusPipeline.from_pretrained(
                model_source(editor), revision=editor.revision, dtype=dtype, **components
            ).to(device)

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap a transformer."""
        from rc_grpo.editor.families.qwen_image_edit.architecture import read
        from rc_grpo.editor.families.qwen_image_edit.transformer import QwenBody

        return QwenBody(transformer, read(editor))

    def codec(self, pipeline: Any, editor: EditorConfig, *, offload: bool) -> Codec:
        """Wrap the text encoder and the VAE of a pipeline."""
        from rc_grpo.editor.families.qwen_image_edit.codec import QwenCodec

        return QwenCodec(pipeline, editor, offload=offload)

    def edit(
        self, pipeline: Any, editor: EditorConfig, source: Pixels, instruction: str, *, steps: int, seed: int
    ) -> Pixels:
        """Edit an image with the stock pipeline, at its own size."""
        from rc_grpo.editor.families.qwen_image_edit.codec import edit

        return edit(pipeline, editor, source, instruction, steps=steps, seed=seed)


FAMILY = QwenImageEdit()
