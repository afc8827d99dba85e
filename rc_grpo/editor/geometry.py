"""From pixels to tokens: the size an image is edited at, and which tokens the mask covers.

The image and its mask go through the same resize, so that a token and the pixel block it stands for agree
(algorithm.md, section 1). Image: the editor's size. Mask: that size, then the block's coverage.
"""

import logging
import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import MaskConfig
from rc_grpo.images import Pixels, decode_levels

logger = logging.getLogger(__name__)

_WAY_OUT = "save it as black and white, white where to edit"


class EmptyMaskError(ValueError):
    """The mask covers nothing, so the task asks for no edit."""


def editing_size(height: int, width: int, resolution: int, multiple: int) -> tuple[int, int]:
    """Return the ``(height, width)`` an image is edited at: area about ``resolution ** 2``, aspect kept.

    Args:
        height: of the source, pixels.
        width: of the source, pixels.
        resolution: side of the square of the wanted area, pixels.
        multiple: both sides are multiples of this (a token's side in pixels).
    """
    scale = resolution / math.sqrt(height * width)
    fitted_height, fitted_width = (max(1, round(side * scale / multiple)) * multiple for side in (height, width))
    return fitted_height, fitted_width


def resize_image(image: Pixels, height: int, width: int) -> Pixels:
    """Resize an RGB image ``[h, w, 3]`` uint8 as the stock pipelines do (Lanczos); a fitting one is returned."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def binary_mask(data: bytes, *, invert: bool = False) -> NDArray[np.bool_]:
    """Decode a mask file into ``[H, W]`` bool, upright, True where the edit may happen; see `inside_of`.

    Raises:
        EmptyMaskError: nothing is inside.
        ValueError: the bytes are not an image, or its levels do not tell inside from outside.
    """
    inside = inside_of(decode_levels(data))
    if invert:
        inside = ~inside
    if not inside.any():
        raise EmptyMaskError("the mask covers no pixel" + (" after inversion" if invert else ""))
    return inside


def inside_of(levels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return ``[H, W]`` bool of a mask's levels: where they are the higher of two, or in the upper half of many.

    Of two levels one is background: 0 always is, else they must lie an eighth of the range apart. A single level is
    the background if it is 0, the region if it is 1 or white.

    Raises:
        EmptyMaskError: all of many levels are below half.
        ValueError: nothing tells which levels are inside, and a guess would cover everything.
    """
    present = np.unique(levels)
    low, high, white = present[0].item(), present[-1].item(), _white(levels)
    if len(present) == 1:
        if high not in (0, 1, white):
            raise ValueError(f"the mask has the single level {high:g}, which is neither black nor white; {_WAY_OUT}")
        return levels > 0
    if len(present) == 2:
        if low != 0 and high - low < white / 8:
            raise ValueError(
                f"the mask has two levels, {low:g} and {high:g}, too close to tell inside from outside; {_WAY_OUT}"
            )
        return np.asarray(levels == high)
    _warn_about_levels()
    inside = np.asarray(levels >= (white + 1) // 2 if white > 1 else levels >= 0.5)
    if inside.all() or not inside.any():
        raise (ValueError if inside.any() else EmptyMaskError)(
            f"the mask has {len(present)} levels, all from {low:g} to {high:g} of {white:g}: half of the range tells "
            f"nothing inside from outside (is it a map of labels?); {_WAY_OUT}"
        )
    return inside


def _white(levels: NDArray[Any]) -> int:
    """Return the level of white: by the bits of whole levels, or by what there is where those say nothing."""
    bits = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
    if levels.dtype in bits:
        return bits[levels.dtype]
    high = levels.max()
    if not (levels.min() >= 0 and high <= 65535):
        raise ValueError(f"the mask has levels that are negative, too large or no numbers; {_WAY_OUT}")
    return next(white for white in (1, 255, 65535) if high <= white)


def resize_mask(inside: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float32]:
    """Resize a mask ``[h, w]`` to ``[height, width]`` float32 coverage in 0..1, so that no small region vanishes."""
    image = Image.fromarray(inside.astype(np.float32), mode="F")
    return np.clip(np.asarray(image.resize((width, height), Image.Resampling.BOX)), 0.0, 1.0)


def mask_remark(inside: NDArray[np.bool_], resolution: int, token: int) -> str | None:
    """Return what is unusual about a mask ``[h, w]`` that can be edited under all the same, or None.

    Args:
        inside: where the edit may happen.
        resolution: side of the square whose area images are edited at.
        token: side of a token in pixels.
    """
    if inside.all():
        return "the mask covers the whole image, so that nothing is to be kept"
    if float(inside.mean()) * resolution**2 < token**2:
        return f"the mask covers less than one token of {token}x{token} pixels of the edited image"
    return None


def token_mask(inside: NDArray[np.bool_], height: int, width: int, token: int, config: MaskConfig) -> Tensor:
    """Return the token mask ``[N]`` bool of an edit at ``height x width``, tokens in row-major order.

    A token is inside when more than ``config.threshold`` of its pixels is; the region then grows by
    ``config.dilation`` tokens (both are our reading of the paper).

    Raises:
        EmptyMaskError: no token is inside (possible with a threshold above 0).
    """
    coverage = torch.from_numpy(resize_mask(inside, height, width).copy())[None, None]
    share = F.avg_pool2d(coverage, token)
    mask = (share > config.threshold).float()
    if config.dilation:
        mask = F.max_pool2d(mask, 2 * config.dilation + 1, stride=1, padding=config.dilation)
    if not mask.any():
        raise EmptyMaskError(
            f"no token has more than {config.threshold:.0%} of its pixels inside the mask; lower rollout.mask.threshold"
        )
    return mask.flatten().bool()


@cache
def _warn_about_levels() -> None:
    logger.warning(
        "a mask has more than two grey levels; such masks are thresholded at half of their range, 128 of 255"
    )
