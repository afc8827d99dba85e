"""An edit laid over its source again: a shift of a few pixels undone, and light and contrast that drifted everywhere.

Generators move a picture by parts of a pixel, crop it by a few, and change its light by a few per cent. None of that is
the edit. Both are estimated from what did not change, which most of a local edit's picture is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

FARTHEST = 1 / 48
"""Of the shorter side: a shift beyond it is no drift, and is left. About 10 pixels of 512."""

_PRECISION = 20
"""Parts of a pixel to which a shift is found."""

_GAIN, _OFFSET = 0.2, 32.0
"""How far light may have drifted: the gain from 1, the offset in levels of 255. Beyond it is an edit of all."""

_KEPT = 0.6
"""Share of pixels, those that fit best, from which light is estimated: the edit must not pull at it."""

_ROUNDS = 12
_FLAT = 2.0
"""Levels; a picture whose levels spread less tells an offset, and no gain."""

_SETTLED = 1e-4
"""Change of the gain from one round to the next that is none."""

_SAMPLED = 1 << 13
"""Pixels that light is estimated from, at most."""

_WORTH = 0.95
"""A shift must lower what is left of the difference by this factor, or it is none."""


@dataclass(frozen=True)
class Aligned:
    """A target laid over its source.

    Attributes:
        target: ``[H, W, 3]`` float32, shifted and relit.
        known: ``[H, W]`` bool, where the shifted target shows anything.
        shift: rows and columns by which the target was moved.
        gain: by which its levels were multiplied, one a channel.
        offset: what was added to them, one a channel.
    """

    target: Floats
    known: NDArray[np.bool_]
    shift: tuple[float, float]
    gain: tuple[float, float, float]
    offset: tuple[float, float, float]


def align(source: Floats, target: Floats) -> Aligned:
    """Lay a target over its source.

    Args:
        source: ``[H, W, 3]`` float32 levels, 0 to 255.
        target: likewise, of the same size.
    """
    luma, other = source.mean(axis=-1), target.mean(axis=-1)
    shift = _best_shift(luma, other)
    known = _shown(luma.shape, shift)
    moved = np.stack([_moved(target[..., channel], shift) for channel in range(3)], axis=-1)
    fits = [_light(source[..., channel][known], moved[..., channel][known]) for channel in range(3)]
    gain, offset = (np.array(parts, dtype=np.float32) for parts in zip(*fits, strict=True))
    return Aligned(moved * gain + offset, known, shift, _three(gain), _three(offset))


def _best_shift(source: Floats, target: Floats) -> tuple[float, float]:
    """Return the shift of the target that leaves least of the difference in most of the picture."""
    farthest = max(2.0, FARTHEST * min(source.shape))
    best, least = (0.0, 0.0), _left(source, target, (0.0, 0.0)) * _WORTH
    for shift in _candidates(source, target):
        if max(map(abs, shift)) <= farthest and (left := _left(source, target, shift)) < least:
            best, least = shift, left
    return best


def _candidates(source: Floats, target: Floats) -> list[tuple[float, float]]:
    # Here, as its import takes a second and other makers do without.
    from skimage.registration import phase_cross_correlation

    window = np.outer(np.hanning(source.shape[0] + 2)[1:-1], np.hanning(source.shape[1] + 2)[1:-1])
    pair = [(image - image.mean()) * window for image in (source, target)]
    found = []
    # By phase alone the peak is sharp, and an edit bends it little; where the picture is smooth, noise has phases too.
    for normalization in ("phase", None):
        with np.errstate(all="ignore"):
            shift, _, _ = phase_cross_correlation(*pair, upsample_factor=_PRECISION, normalization=normalization)
        if np.isfinite(shift).all():
            found.append((float(shift[0]), float(shift[1])))
    return found


def _left(source: Floats, target: Floats, shift: tuple[float, float]) -> float:
    """Return the mean difference of those pixels that fit best."""
    known = _shown(source.shape, shift)
    if not known.any():
        return float("inf")
    one, other = source[known], _moved(target, shift)[known]
    gain, offset = _light(one, other)
    apart = np.abs(one - (other * gain + offset))
    kept = int(_KEPT * apart.size)
    return float(np.partition(apart, kept)[:kept].mean()) if kept else float(apart.mean())


def _moved(image: Floats, shift: tuple[float, float]) -> Floats:
    if shift == (0.0, 0.0):
        return image
    return np.asarray(ndimage.shift(image, shift, order=3, mode="nearest"), dtype=np.float32)


def _shown(shape: tuple[int, ...], shift: tuple[float, float]) -> NDArray[np.bool_]:
    shown = np.ones(shape[:2], dtype=bool)
    for axis, by in enumerate(shift):
        rim = int(np.ceil(abs(by))) + 1 if by else 0
        cut = [slice(None), slice(None)]
        cut[axis] = slice(0, rim) if by > 0 else slice(shape[axis] - rim, None)
        if rim:
            shown[tuple(cut)] = False
    return shown


def _light(source: Floats, target: Floats) -> tuple[float, float]:
    """Return gain and offset of the target's levels, from the pixels that fit best, or 1 and 0 where none does."""
    gain, offset = 1.0, 0.0
    # Odd, so that it does not walk down the columns of an image whose side is a power of two.
    step = max(1, source.size // _SAMPLED) | 1
    source, target = source[::step], target[::step]
    kept = max(2, int(_KEPT * source.size))
    if source.size <= kept:
        return gain, offset
    # From the quartiles, which an edit of a part moves little, to begin near: what fits best at a gain of 1 tells
    # little of another gain.
    one, other = np.quantile(source, (0.25, 0.5, 0.75)), np.quantile(target, (0.25, 0.5, 0.75))
    if other[2] - other[0] > _FLAT:
        gain = float(np.clip((one[2] - one[0]) / (other[2] - other[0]), 1 - _GAIN, 1 + _GAIN))
    offset = float(one[1] - gain * other[1])
    for _ in range(_ROUNDS):
        before = gain, offset
        apart = np.abs(source - (target * gain + offset))
        near = apart <= np.partition(apart, kept)[kept]
        fit, fitted = source[near].astype(np.float64), target[near].astype(np.float64)
        spread = fitted.var()
        gain = float(((fit - fit.mean()) * (fitted - fitted.mean())).mean() / spread) if spread > _FLAT**2 else 1.0
        offset = float(fit.mean() - gain * fitted.mean())
        if abs(gain - before[0]) < _SETTLED and abs(offset - before[1]) < 128 * _SETTLED:
            break
    if abs(gain - 1) > _GAIN or abs(offset + (gain - 1) * 128) > _OFFSET:
        return 1.0, 0.0
    return gain, offset


def _three(values: NDArray[np.float32]) -> tuple[float, float, float]:
    one, two, three = (round(float(value), 4) for value in values)
    return one, two, three
