"""Where source and target differ, beyond what encoding, a small shift and a drift of light make of the same picture."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from rc_grpo.images import Pixels
from rc_grpo.masks.aligning import Aligned, Floats, align
from rc_grpo.masks.making import Example, Made, Method, NoMaskError
from rc_grpo.masks.shaping import Shape, grown, to_size

_ROUNDING = 0.02
"""By how much the proportions of a target may differ from its source's: sides are rounded to multiples of 8 to 32."""

_EVERYWHERE = 0.9
"""Of a picture that differs over more than this share nothing tells what the edit was."""

_NOISIEST = 8.0
"""Levels; where most of a picture differs by more, it is another picture, and no noise that would hide edits."""

_SMOOTH = 0.7
"""Pixels over which levels are averaged: grain is no edit."""

_CHROMA = 0.5
"""What chroma weighs against luma: encoders store it at half the size, and it bleeds over what borders on the edit."""

_LUMA_CHROMA = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.169 * _CHROMA, -0.331 * _CHROMA, 0.5 * _CHROMA],
        [0.5 * _CHROMA, -0.419 * _CHROMA, -0.081 * _CHROMA],
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class Difference:
    """Makes a mask from source and target.

    Attributes:
        low: levels of 255 by which a pixel must differ to belong to a region.
        high: by which at least one pixel of each region must.
        side: longest side at which pictures are compared; larger ones are shrunk.
        shape: how the region is tidied.
    """

    low: float = 10.0
    high: float = 24.0
    side: int = 1024
    shape: Shape = field(default_factory=Shape)
    method: ClassVar[Method] = "difference"
    parallel: ClassVar[bool] = True

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `rc_grpo.masks.making.MaskMaker`."""
        return asdict(self)

    def __call__(self, example: Example) -> Made:
        """See `rc_grpo.masks.making.MaskMaker`."""
        target = example.target_pixels()
        if target is None:
            raise NoMaskError("no target", "there is no target image")
        return self.between(example.pixels(), target)

    def between(self, source: Pixels, target: Pixels) -> Made:
        """Return the mask of an edit.

        Args:
            source: RGB ``[H, W, 3]`` uint8.
            target: RGB ``[h, w, 3]`` uint8; of another size only by rounding, or scaled.

        Raises:
            NoMaskError: its proportions are others, or nothing or everything changed.
        """
        (height, width), (other_height, other_width) = source.shape[:2], target.shape[:2]
        if abs((other_width / other_height) / (width / height) - 1) > _ROUNDING:
            raise NoMaskError(
                "sizes",
                f"the source is {height}x{width}, the target {other_height}x{other_width} (height x width)",
            )
        scale = min(1.0, self.side / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        before, after = _scaled(source, size), _scaled(target, size)
        aligned = align(before, after)
        apart, noise = _apart(before, aligned)
        low, high = max(self.low, 3 * noise), max(self.high, 6 * noise)
        # Here, as its import takes a second and other makers do without.
        from skimage.filters import apply_hysteresis_threshold

        # The tolerance of `_apart` takes a pixel off every edge.
        region = self.shape.of(grown(np.asarray(apply_hysteresis_threshold(apart, low, high)), 1.5))
        if not region.any():
            raise NoMaskError("nothing changed", f"no region differs by more than {high:.0f} of 255 levels")
        if (share := float(region.mean())) > _EVERYWHERE:
            raise NoMaskError("everything changed", f"{share:.0%} of the picture differ")
        detail = {
            "shift": [round(by / scale, 2) for by in aligned.shift],
            "gain": list(aligned.gain),
            "offset": list(aligned.offset),
            "thresholds": [round(low, 1), round(high, 1)],
        }
        return Made(to_size(region, height, width), detail)


def _scaled(image: Pixels, size: tuple[int, int]) -> Floats:
    if image.shape[:2] != size:
        image = np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.LANCZOS))
    return image.astype(np.float32)


def _apart(source: Floats, aligned: Aligned) -> tuple[Floats, float]:
    """Return by how many levels each pixel ``[H, W]`` differs, and the noise of those that do not.

    A pixel differs if it lies beyond what the other picture shows within a pixel of it: an edge that is shifted by
    a part of a pixel, ringing beside it, or colour that an encoder stored at half the size is then no difference.
    """
    one, other = (
        ndimage.gaussian_filter(_luma_chroma(image), (_SMOOTH, _SMOOTH, 0)) for image in (source, aligned.target)
    )
    beyond = np.maximum(_beyond(one, other), _beyond(other, one)).max(axis=-1)
    beyond[~aligned.known] = 0.0
    noise = np.median(np.abs(one - other).max(axis=-1)[aligned.known]) if aligned.known.any() else 0.0
    return beyond, min(float(noise), _NOISIEST)


def _smoothed(image: Floats) -> Floats:
    return np.asarray(ndimage.gaussian_filter(image, (_SMOOTH, _SMOOTH, 0)))


def _luma_chroma(image: Floats) -> Floats:
    """Return luma and the two chroma, weighed, ``[H, W, 3]`` of RGB levels."""
    return image @ _LUMA_CHROMA.T


def _beyond(image: Floats, other: Floats) -> NDArray[np.float32]:
    around = {"size": (3, 3, 1), "mode": "nearest"}
    above = image - ndimage.maximum_filter(other, **around)
    below = ndimage.minimum_filter(other, **around) - image
    return np.asarray(np.maximum(np.maximum(above, below), 0.0), dtype=np.float32)
