"""The toy model: a diffusers model like any other, so that PEFT can put a LoRA on it."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from torch import Tensor, nn
from torch.nn import functional

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import Architecture, Tokens
from rc_grpo.editor.recording import Probe

TOKEN, BLOCK = 16, 4
"""Side of a token, and of the blocks that the codec averages, in pixels."""
CHANNELS = 3 * (TOKEN // BLOCK) ** 2
HEADS, TEXT_WIDTH = 2, 24
SOURCE_SHRUNK_BY = 2


@dataclass(frozen=True)
class SketchArchitecture(Architecture):
    """Its sizes."""

    @classmethod
    def of(cls, layers: int, width: int) -> "SketchArchitecture":
        """Return those of so many blocks."""
        names = ("to_q", "to_k", "to_v", "to_out")
        projections = {f"blocks.{index}.attn.{name}": (width, width) for index in range(layers) for name in names}
        return cls(layers, width, TOKEN, 4 * width**2 * layers, 0.0, projections)

    def tokens(self, editor: EditorConfig) -> Tokens:
        """Return the lengths of an edit: the source has a quarter of the target's tokens."""
        target = (editor.resolution // TOKEN) ** 2
        return Tokens(editor.text_tokens, target, target // SOURCE_SHRUNK_BY**2)

    def forward_tflop(self, tokens: Tokens) -> tuple[float, float]:
        """Return the TFLOP of one pass."""
        projections = 2 * 4 * self.width**2 * self.layers * tokens.total
        return projections / 1e12, 4 * tokens.total**2 * self.width * self.layers / 1e12


class Attend:
    """The attention processor of a block."""

    def __init__(self, probe: Probe | None = None) -> None:
        self.probe = probe
        self.concentration: Tensor | None = None

    def __call__(self, attn: "SketchAttention", x: Tensor) -> Tensor:
        """Attend within ``[B, S, width]``, and measure if asked to."""
        query, key, value = (project(x).unflatten(-1, (HEADS, -1)) for project in (attn.to_q, attn.to_k, attn.to_v))
        if self.probe is not None:
            self.concentration = self.probe(query, key)
        mixed = functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)))
        projected: Tensor = attn.to_out(mixed.transpose(1, 2).flatten(2))
        return projected


class SketchAttention(nn.Module):
    """Self-attention whose processor can be exchanged, as diffusers' can."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.processor: Any = Attend()

    def set_processor(self, processor: Any) -> None:
        """Exchange it."""
        self.processor = processor

    def forward(self, x: Tensor) -> Tensor:
        """Attend by the processor."""
        attended: Tensor = self.processor(self, x)
        return attended


class SketchBlock(nn.Module):
    """Attention in a stream that is scaled by the noise level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.attn = nn.LayerNorm(width), SketchAttention(width)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the stream ``[B, S, width]``."""
        return x + self.attn(self.norm(x) * (1 + sigma[:, None, None]))


class SketchTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Data minus noise at noisy targets: what leads to the source, and what attention adds to that."""

    @register_to_config
    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.of_text, self.of_image = nn.Linear(TEXT_WIDTH, width), nn.Linear(CHANNELS, width)
        self.blocks = nn.ModuleList(SketchBlock(width) for _ in range(layers))
        self.to_image = nn.Linear(width, CHANNELS)

    def forward(self, text: Tensor, source: Tensor, kept: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
        """Return ``[B, N, C]`` for noisy targets.

        Args:
            text: ``[B, L, D]``.
            source: ``[B, M, C]``, at its own size.
            kept: the same at the target's ``[B, N, C]``.
            target: ``[B, N, C]``.
            sigma: ``[B]``.
        """
        x = torch.cat([self.of_text(text), self.of_image(source), self.of_image(target)], dim=1)
        for block in self.blocks:
            x = block(x, sigma)
        predicted: Tensor = 0.15 * self.to_image(x[:, -target.shape[1] :]) + (kept - target) / sigma[:, None, None]
        return predicted
