"""FLUX.2 klein's KV variant: a pipeline and a transformer of its own around klein's text, codec and sizes."""

from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families import flux2_klein
from rc_grpo.editor.family import Guidance


class Flux2KleinKV(flux2_klein.Flux2Klein):
    """The `rc_grpo.editor.family.Family` of ``Flux2KleinKVPipeline``: what sources are is computed once a task."""

    name = "flux2-klein-kv"
    models = frozenset({"full-size-klein-9b-kv"})
    hub_ids = MappingProxyType({"black-forest-labs/FLUX.2-klein-9b-kv": "full-size-klein-9b-kv"})
    pipeline = "Flux2KleinKVPipeline"
    guidance: Guidance = "none"

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Load diffusers' own pipeline; a component given as None is left out."""
        if components.get("transformer", self) is None:
            # Its own pipeline cannot be without one; klein's encoders are the same.
            return flux2_klein.FAMILY.load_pipeline(editor, device, dtype, is_distilled=True, **components)
        return super().load_pipeline(editor, device, dtype, **components)

    def _module(self, name: str) -> Any:
        return import_module(f"{__name__ if name == 'transformer' else flux2_klein.__name__}.{name}")


FAMILY = Flux2KleinKV()
