"""FLUX.2 klein: the base models for training, the distilled ones to roll out and evaluate, and a pocket editor.

The KV variant is a family of its own, as it has a pipeline of its own; it shares this folder.
"""

from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rc_grpo.config.editor import MOST_SOURCES, EditorConfig
from rc_grpo.editor.families.flux2_klein.names import FIRST_NAMES
from rc_grpo.editor.family import Body, Guidance
from rc_grpo.editor.stock.family import StockFamily


class Flux2Klein(StockFamily):
    """The `rc_grpo.editor.family.Family` of ``Flux2KleinPipeline``."""

    name = "flux2-klein"
    models = frozenset({"pocket-klein", "full-size-klein-4b", "full-size-klein-9b"})
    hub_ids = MappingProxyType(
        {
            "black-forest-labs/FLUX.2-klein-base-4B": "full-size-klein-4b",
            "black-forest-labs/FLUX.2-klein-base-9B": "full-size-klein-9b",
            "black-forest-labs/FLUX.2-klein-4B": "full-size-klein-4b",
            "black-forest-labs/FLUX.2-klein-9B": "full-size-klein-9b",
        }
    )
    pipeline = "Flux2KleinPipeline"
    transformer = "Flux2Transformer2DModel"
    first_names = FIRST_NAMES
    guidance: Guidance = "cfg"
    sources = MOST_SOURCES


class Flux2KleinKV(Flux2Klein):
    """The `rc_grpo.editor.family.Family` of ``Flux2KleinKVPipeline``: what sources are is computed once a task."""

    name = "flux2-klein-kv"
    models = frozenset({"full-size-klein-9b-kv"})
    hub_ids = MappingProxyType({"black-forest-labs/FLUX.2-klein-9b-kv": "full-size-klein-9b-kv"})
    pipeline = "Flux2KleinKVPipeline"
    guidance: Guidance = "none"

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out."""
        if components.get("transformer", self) is None:
            # Its own pipeline cannot be without one; the other one's encoders are the same.
            return FAMILY.load_pipeline(editor, device, dtype, is_distilled=True, **components)
        return super().load_pipeline(editor, device, dtype, **components)

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap a transformer."""
        return self._module("kv").body(transformer, editor)  # type: ignore[no-any-return]


FAMILY = Flux2Klein()
KV = Flux2KleinKV()
