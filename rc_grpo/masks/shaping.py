"""From scattered pixels to regions, by distances: holes closed, specks dropped, a margin around what is left."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

Region = NDArray[np.bool_]


@dataclass(frozen=True)
class Shape:
    """How a region is tidied. Lengths are shares of the image's mean side (the root of its area), areas of its area.

    Attributes:
        close: gaps up to twice this wide are closed.
        hole: holes up to this area are filled.
        speck: parts below this area are dropped.
        margin: the region grows by this. The default is a token of 16 pixels of an edit at 512x512.
    """

    close: float = 1 / 64
    hole: float = 0.05
    speck: float = 0.0005
    margin: float = 1 / 32

    def of(self, region: Region) -> Region:
        """Return a region ``[H, W]`` tidied, and with its margin."""
        side = np.sqrt(region.size)
        closed = _closed(region, self.close * side)
        parts = without_small(_without_holes(closed, self.hole * region.size), self.speck * region.size)
        return grown(parts, self.margin * side)


def grown(region: Region, radius: float) -> Region:
    """Return a region ``[H, W]`` with all pixels within ``radius`` of it."""
    if not region.any() or radius < 1:
        return region.copy()
    return np.asarray(ndimage.distance_transform_edt(~region) <= radius)


def without_small(region: Region, area: float) -> Region:
    """Return a region ``[H, W]`` without its connected parts of fewer than ``area`` pixels."""
    labels, count = ndimage.label(region, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= area
    kept[0] = False
    return np.asarray(kept[labels])


def to_size(region: Region, height: int, width: int) -> Region:
    """Return a region ``[h, w]`` at another size: each pixel is inside if most of what it shows is."""
    if region.shape == (height, width):
        return region
    image = Image.fromarray(region.astype(np.float32), mode="F").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image) > 0.5


def _closed(region: Region, radius: float) -> Region:
    if radius < 1 or not region.any():
        return region
    # What lies beyond the edge is as the edge: else a region at the edge would be eaten from there.
    wide = int(np.ceil(radius)) + 1
    padded = grown(np.pad(region, wide, mode="edge"), radius)
    eroded = np.asarray(ndimage.distance_transform_edt(padded) > radius) if not padded.all() else padded
    return np.asarray(region | eroded[wide:-wide, wide:-wide])


def _without_holes(region: Region, area: float) -> Region:
    holes = ndimage.binary_fill_holes(region) & ~region
    return np.asarray(region | (holes & ~without_small(holes, area)))
