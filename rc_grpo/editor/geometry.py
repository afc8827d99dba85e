"""From pixels to tokens: the size an image is edited at, and which tokens the mask covers.

The image and its mask go through the same resize, so that a token and the pixel block it stands for agree
(algorithm.md, section 1). Image: the editor's size. Mask: that size, then the block's coverage.
"""

import logging
import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.config import MaskConfig
from rc_grpo.images import Pixels, decode_gray

logger = logging.getLogger(__name__)


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
    """Decode a mask file into ``[H, W]`` bool, True where the edit may happen.

    Files of {0, 255}, {0, 1} or booleans are taken as they are; anything else is thresholded at half its range.

    Raises:
        EmptyMaskError: nothing is inside.
        ValueError: the bytes are not an image.
    """
    levels = decode_gray(data)
    present = set(np.unique(levels).tolist())
    if present <= {0, 255} or present <= {0, 1}:
        inside = levels > 0
    else:
        _warn_about_levels()
        inside = levels >= 128
    if invert:
        inside = ~inside
    if not inside.any():
        raise EmptyMaskError("the mask covers no pixel" + (" after inversion" if invert else ""))
    return inside


def resize_mask(inside: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float32]:
    """Resize a mask ``[h, w]`` to ``[height, width]`` float32 coverage in 0..1, so that no small region vanishes."""
    image = Image.fromarray(inside.astype(np.float32), mode="F")
    return np.clip(np.asarray(image.resize((width, height), Image.Resampling.BOX)), 0.0, 1.0)


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
    logger.warning("a mask has grey levels other than 0 and 255; such masks are thresholded at 128")
