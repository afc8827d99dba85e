"""Sketch: a toy editor with what makes families differ, and nothing else.

Its joint attention runs over [text | source | target], the source is edited at half the target's size, it is guided by
a second pass with an empty text, its schedule depends on the number of steps, and its model predicts data minus noise.
Its weights are random; its "VAE" averages blocks of four pixels.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import Architecture, Body, Codec, Guidance, TextCounter
from rc_grpo.images import Pixels


class Sketch:
    """The family; see `rc_grpo.editor.family.Family`."""

    name = "sketch"
    models = frozenset({"sketch-tiny"})
    hub_ids: Mapping[str, str] = MappingProxyType({})
    pipeline = "SketchPipeline"
    guidance: Guidance = "cfg"
    sources = 1
    source_resolution: int | None = None

    def architecture(self, editor: EditorConfig) -> Architecture:
        """Return the sizes, which are constants; a real family reads them from configuration files."""
        from sketch_family.model import SketchArchitecture

        return SketchArchitecture.of(layers=2, width=32)

    def text_counter(self, editor: EditorConfig) -> TextCounter:
        """Return what counts words."""
        from sketch_family.codec import count

        return lambda instruction: count(instruction, editor)

    def load_transformer(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Make the transformer, the same weights every time."""
        from sketch_family.model import SketchTransformer

        with torch.random.fork_rng():
            torch.manual_seed(0)
            return SketchTransformer(layers=2, width=32).to(device, dtype)

    def load_pipeline(self, editor: EditorConfig, device: torch.device, dtype: torch.dtype, **components: Any) -> Any:
        """Return nothing: text and images need no weights here."""
        return None

    def body(self, transformer: nn.Module, editor: EditorConfig) -> Body:
        """Wrap the transformer."""
        from sketch_family.body import SketchBody

        return SketchBody(transformer, self.architecture(editor))

    def codec(self, pipeline: Any, editor: EditorConfig, *, offload: bool) -> Codec:
        """Return the codec."""
        from sketch_family.codec import SketchCodec

        return SketchCodec(editor)

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
        """Edit an image with the base model."""
        from rc_grpo.algorithm.solver import integrate
        from rc_grpo.editor.loading import load_editor
        from rc_grpo.seeds import normal

        whole = load_editor(editor, seed=0)
        conditions = whole.encode_image(source, instruction, *references)
        noise = normal(seed, 1, *whole.latent_shape(conditions)).to(whole.device)
        with torch.no_grad():
            states = integrate(whole.velocity(conditions), noise, whole.sigmas(steps, conditions))
        return whole.decode(states[-1], conditions)[0]


FAMILY = Sketch()
