"""Sources that a pipeline shows at a size apart from the edit's, and its latents of them."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

STOCK_SOURCE = 1024
"""Side of the square whose area such pipelines show a source at, whatever the size of the edit."""

MULTIPLE = 32


def source_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Return the ``(height, width)`` of about ``resolution ** 2`` pixels, as the stock pipelines round them."""
    ratio = width / height
    wide = math.sqrt(resolution**2 * ratio)
    return round(wide / ratio / MULTIPLE) * MULTIPLE, round(wide / MULTIPLE) * MULTIPLE


def packed_sources(
    pipeline: Any, pictures: Sequence[Image.Image], resolution: int | None
) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """Return the latents ``[M, C]`` of sources one after the other, and the ``(height, width)`` each is shown at.

    Args:
        pipeline: with a VAE of videos.
        pictures: in their order.
        resolution: ``editor.source_resolution``.
    """
    vae, packed, sizes = pipeline.vae, [], []
    for picture in pictures:
        sizes.append(source_size(picture.height, picture.width, resolution or STOCK_SOURCE))
        pixels = pipeline.image_processor.preprocess(picture, *sizes[-1]).unsqueeze(2).to(vae.device, vae.dtype)
        latents = pipeline._encode_vae_image(pixels, generator=None)
        packed.append(pipeline._pack_latents(latents, *latents.shape[:2], *latents.shape[3:])[0])
    return torch.cat(packed), tuple(sizes)
