"""What families of diffusers' pipelines share: finding their own modules, loading by class, models of full size.

A family's folder has the modules ``architecture`` (``read``), ``text`` (``counter``), ``full_size`` (``named``, which
returns a `rc_grpo.editor.stock.random_weights.FullSize` or None), ``transformer`` (``body``) and ``codec`` (``codec``,
``edit``). They are imported by whoever asks for them: importing the folder itself loads no model code.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import Architecture, Body, Codec, Guidance, TextCounter
from rc_grpo.editor.files import model_source, naming_the_model
from rc_grpo.editor.stock.random_weights import FullSize
from rc_grpo.editor.weights import pretrained
from rc_grpo.images import Pixels


class StockFamily:
    """A `rc_grpo.editor.family.Family`; subclasses set the attributes.

    Attributes:
        transformer: class of its transformer in diffusers.
        others: as in `rc_grpo.editor.family.Family`.
    """

    name: str
    models: frozenset[str]
    hub_ids: Mapping[str, str]
    pipeline: str
    transformer: str
    guidance: Guidance
    sources: int = 1
    source_resolution: int | None = None

    def architecture(self, editor: EditorConfig) -> Architecture:
        """Read a model's sizes from its configuration files, or return those of full size."""
        return self._module("architecture").read(editor)  # type: ignore[no-any-return]

    def text_counter(self, editor: EditorConfig) -> TextCounter:
        """Load what counts an instruction's tokens; no weights."""
        return self._module("text").counter(editor)  # type: ignore[no-any-return]

    def load_transformer(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the transformer alone."""
        if full_size := self.full_size(editor):
            return full_size.build_transformer(device, dtype)  # type: ignore[no-any-return]
        with naming_the_model(editor):
            options = {"subfolder": "transformer", "revision": editor.revision, "dtype": dtype}
            loaded = pretrained.load_model(_class_of(self.transformer), model_source(editor), **options)
        return loaded.to(device)  # type: ignore[no-any-return]

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out."""
        if full_size := self.full_size(editor):
            return full_size.build_pipeline(device, dtype, **components)
        with naming_the_model(editor):
            kind = _class_of(self.pipeline)
            loaded = pretrained.load_pipeline(kind, model_source(editor), editor.revision, dtype, **components)
        return loaded.to(device)

    def full_size(self, editor: EditorConfig) -> FullSize | None:
        """Return the published architecture that ``editor.model`` names; None if it is a model with its own weights."""
        return self._module("full_size").named(editor)  # type: ignore[no-any-return]

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap a transformer."""
        return self._module("transformer").body(transformer, editor)  # type: ignore[no-any-return]

    def codec(self, pipeline: Any, editor: EditorConfig, *, offload: bool) -> Codec:
        """Wrap the encoders and the VAE of a pipeline."""
        return self._module("codec").codec(pipeline, editor, offload=offload)  # type: ignore[no-any-return]

    def edit(
        self,
        pipeline: Any,
        editor: EditorConfig,
        source: Pixels,
        instruction: str,
        *references: Pixels,
        steps: int,
        seed: int,
    ) -> Pixels:
        """Edit an image with the stock pipeline, at its own size."""
        edited: Pixels = self._module("codec").edit(
            pipeline, editor, source, instruction, *references, steps=steps, seed=seed
        )
        return edited

    def _module(self, name: str) -> Any:
        return import_module(f"{type(self).__module__}.{name}")


def _class_of(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)
