"""At which size a pipeline shows a source that it sizes apart from the edit."""

import math

STOCK_SOURCE = 1024
"""Side of the square whose area such pipelines show a source at, whatever the size of the edit."""

MULTIPLE = 32


def source_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """Return the ``(height, width)`` of about ``resolution ** 2`` pixels, as the stock pipelines round them."""
    ratio = width / height
    wide = math.sqrt(resolution**2 * ratio)
    return round(wide / ratio / MULTIPLE) * MULTIPLE, round(wide / MULTIPLE) * MULTIPLE
