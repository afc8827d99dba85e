"""How the toy is spoken to: what `rc_grpo.editor.family.Body` and `Bound` ask for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rc_grpo.editor.family import Architecture, Forward, Guidance, Prefix, Text
from rc_grpo.editor.guidance import classifier_free
from rc_grpo.editor.recording import Layout, Probe
from rc_grpo.messages import Conditions
from rc_grpo.seeds import derive, normal
from sketch_family.model import CHANNELS, SOURCE_SHRUNK_BY, TEXT_WIDTH, TOKEN, Attend


class SketchBody:
    """The transformer, wrapped."""

    guidance: Guidance = "cfg"

    def __init__(self, transformer: nn.Module, architecture: Architecture) -> None:
        self.transformer: Any = transformer
        self.architecture = architecture
        self.blocks: Sequence[Any] = list(self.transformer.blocks)

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's latents."""
        return (conditions.height // TOKEN) * (conditions.width // TOKEN), CHANNELS

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return a schedule that leans towards noise the more the fewer steps there are."""
        even = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
        return even ** (1.0 / (1.0 + 1.0 / steps))

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> "SketchBound":
        """Put a task on the device with one of its texts."""
        return SketchBound(self, conditions, text)

    def combine(self, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        """Guide plainly, then give every token the norm that the positive pass gave it."""
        guided = classifier_free(positive, negative, scale)
        return guided * (positive.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True).clamp(min=1e-6))

    def processor(self, block: Any, probe: Probe | None) -> Attend:
        """Return an attention processor."""
        return Attend(probe)

    def varying(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Sequence[tuple[Tensor, int]]:
        """Return none: a text has the same slots in every task."""
        return ()

    def canary(self) -> Conditions:
        """Return fixed random conditions of four target tokens."""
        shapes = {
            "prompt": (6, TEXT_WIDTH),
            "negative": (6, TEXT_WIDTH),
            "source": (1, CHANNELS),
            "kept": (4, CHANNELS),
        }
        side = 2 * TOKEN
        return Conditions(
            height=side,
            width=side,
            arrays={name: normal(derive("canary", name), *shape).numpy() for name, shape in shapes.items()},
            text_valid=np.ones(6, dtype=np.bool_),
            sources=((side // SOURCE_SHRUNK_BY, side // SOURCE_SHRUNK_BY),),
        )

    def arrange(self, *, fp8: bool) -> None:
        """Leave the blocks as they are.

        Raises:
            ValueError: float8 is asked for.
        """
        if fp8:
            raise ValueError("the sketch family has no float8; set rollout.fp8=false")


class SketchBound:
    """One text of one task: joint order [text | source | target]."""

    def __init__(self, body: SketchBody, conditions: Conditions, text: Text) -> None:
        device, dtype = body.transformer.device, body.transformer.dtype
        self._text, self._source, self._kept = (
            torch.tensor(conditions.arrays[name], device=device, dtype=dtype) for name in (text, "source", "kept")
        )
        first = len(self._text) + len(self._source)
        self.layout = Layout(torch.arange(len(self._text)), slice(first, first + body.latent_shape(conditions)[0]))

    def prefill(self, forward: Forward) -> None:
        """Everything sees the target, so nothing can be computed ahead."""

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return noise minus data."""
        text, source, kept = (part.expand(len(x), -1, -1) for part in (self._text, self._source, self._kept))
        levels = torch.full((len(x),), sigma, device=x.device, dtype=source.dtype)
        data_minus_noise: Tensor = forward(text=text, source=source, kept=kept, target=x.to(source.dtype), sigma=levels)
        return -data_minus_noise.to(x.dtype)
