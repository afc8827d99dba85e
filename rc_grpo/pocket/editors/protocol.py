"""What sets one pocket editor apart from another: all that training and evaluation ask of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

LATENT_CHANNELS = 32
"""Of an autoencoder: 128 pixels are 16x16 latents, and 2x2 of these are a token."""

GRID = 8
"""Tokens along a side of a picture."""


class PocketEditor(Protocol):
    """An editor of a family's own classes, small enough for a laptop.

    Attributes:
        name: as ``--editor`` takes it.
        pipeline: its class in diffusers.
        folder: where the package has its weights.
        shift: of its noise schedule for one of the world's pictures; see `rc_grpo.pocket.making.flow.shifted`.
    """

    name: str
    pipeline: str
    folder: Path
    shift: float

    def build_vae(self) -> Any:
        """Return its autoencoder, untrained."""

    def build_pipeline(self, seed: int) -> Any:
        """Return its pipeline, untrained, tokenizers included; the same weights for the same seed."""

    def measure(self, vae: Any, means: Tensor) -> None:
        """Leave in the autoencoder what brings its latents, of which these are many, to mean 0 and variance 1.

        Args:
            vae: trained.
            means: of latents ``[B, 32, 16, 16]`` float32.
        """

    def tokens(self, vae: Any, means: Tensor) -> Tensor:
        """Return means of latents ``[B, 32, 16, 16]`` as the transformer reads them: ``[B, 64, 128]``."""

    def read(self, pipeline: Any, instructions: Sequence[str]) -> tuple[Tensor, ...]:
        """Tokenise instructions: what a field reads of them, one row each, on the CPU."""

    def field(self, pipeline: Any) -> nn.Module:
        """Return what flow matching trains as one module: transformer and text encoders.

        Called with noisy targets and references ``[B, 64, 128]``, sigmas ``[B]`` and rows of what `read` returns, it
        returns the velocity ``[B, 64, 128]``.
        """

    def install(self, pipeline: Any, field: Any) -> None:
        """Put a field's modules into a pipeline."""

    def save(self, pipeline: Any, folder: Path) -> None:
        """Write the pipeline in diffusers' layout, weights in float16 as far as it can then be loaded as float32."""

    def edit(
        self, pipeline: Any, source: Image.Image, instruction: str, noise: Tensor, steps: int
    ) -> NDArray[np.float32]:
        """Edit a picture once for each noise ``[n, 64, 128]``, by the pipeline: ``[n, 128, 128, 3]`` in [0, 1]."""
