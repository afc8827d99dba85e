"""At which sizes Qwen-Image-Edit looks at a source: as its text encoder's picture, and as its VAE's."""

import math

STOCK_SOURCE = 1024
"""Side of the square whose area the VAE sees a source at, whatever the size of the edit."""

SEEN_BY_TEXT_ENCODER = 384
"""Side of the square whose area the vision-language encoder sees it at."""

MULTIPLE = 32


def source_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Return the ``(height, width)`` of about ``resolution ** 2`` pixels, as the stock pipeline rounds them."""
    ratio = width / height
    wide = math.sqrt(resolution**2 * ratio)
    return round(wide / ratio / MULTIPLE) * MULTIPLE, round(wide / MULTIPLE) * MULTIPLE
