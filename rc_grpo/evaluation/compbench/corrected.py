"""CompBench's metrics without their traps, printed beside `official`; our own, so not comparable with the paper's.

What differs: background means run over the background alone, so that they do not grow with the mask; PSNR ends at
`PSNR_CAP`; a mask is inside or outside, whatever its levels; the box keeps its last row and column; what cannot be
measured (no region, no caption, no background) is left out of the mean instead of counting as 0.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from rc_grpo.evaluation.clip import Clip
from rc_grpo.evaluation.compbench import official
from rc_grpo.evaluation.compbench.frames import Frames, plane, planes
from rc_grpo.evaluation.compbench.scores import Scores
from rc_grpo.evaluation.lpips import Lpips
from rc_grpo.images import Pixels

PSNR_CAP = 60.0
"""dB. What rounding to 8 bits alone leaves is 58.9 dB; beyond this an edit's background is the source's."""

_WINDOW = 11
"""Side of SSIM's Gaussian window in pixels (sigma 1.5), as torchmetrics makes it."""


def measure(frames: Frames, caption: str | None, clip: Clip | None, lpips: Lpips | None) -> Scores:
    """Measure one edit; arguments as of `official.measure`."""
    inside = inside_of(frames.mask)
    source, edited = planes(frames.source), planes(frames.edited)
    lc_i, lc_t = (math.nan, math.nan) if clip is None else _local(frames, inside, caption, clip)
    return Scores(
        lc_i=lc_i,
        lc_t=lc_t,
        psnr=psnr(source, edited, inside),
        ssim=ssim(source, edited, inside),
        lpips=math.nan if lpips is None else masked_lpips(source, edited, inside, lpips),
    )


def inside_of(mask: Pixels) -> NDArray[np.bool_]:
    """Return ``[h, w]`` bool of a mask's levels: above 0 where it has only {0, 1} or {0, 255}, else from 128 up.

    The rule of `rc_grpo.editor.geometry.binary_mask`, which an empty mask does not pass; here one is allowed.
    """
    levels = set(np.unique(mask).tolist())
    return mask > 0 if len(levels) <= 2 and levels <= {0, 1, 255} else mask >= 128


def psnr(source: Tensor, edited: Tensor, inside: NDArray[np.bool_]) -> float:
    """Return PSNR in dB over the pixels outside, `PSNR_CAP` at most; NaN where nothing is outside.

    Args:
        source: ``[1, 3, h, w]`` float32 in 0..1.
        edited: likewise.
        inside: ``[h, w]``.
    """
    outside = torch.from_numpy(~inside)
    if not outside.any():
        return math.nan
    error = float((edited - source)[0, :, outside].double().square().mean())
    return min(PSNR_CAP, -10 * math.log10(error)) if error > 0 else PSNR_CAP


def ssim(source: Tensor, edited: Tensor, inside: NDArray[np.bool_]) -> float:
    """Return SSIM averaged over the positions whose whole window lies outside; NaN where there is none.

    Arguments as of `psnr`. A window that reaches inside would see what the edit was asked to change.
    """
    near = F.max_pool2d(plane(inside.astype(np.float32)), _WINDOW, stride=1, padding=_WINDOW // 2)[0, 0] > 0
    if bool(near.all()):
        return math.nan
    _, at = structural_similarity_index_measure(edited, source, data_range=1.0, return_full_image=True)
    return float(at[0, :, ~near].double().mean())


def masked_lpips(source: Tensor, edited: Tensor, inside: NDArray[np.bool_], lpips: Lpips) -> float:
    """Return LPIPS of the background alone; NaN where there is none. Arguments as of `psnr`.

    The edit's inside is replaced by the source's, where the distance is then 0, and the mean over the frame divided by
    the background's share of it. Not exact within the network's receptive field of the mask's border.
    """
    outside = plane((~inside).astype(np.float32))
    share = float(outside.mean())
    if share == 0:
        return math.nan
    return lpips(torch.where(outside > 0, edited, source), source) / share


def box(inside: NDArray[np.bool_]) -> official.Box | None:
    """Return the tight box of a region ``[h, w]``, nothing of it lost; None of an empty one."""
    rows, columns = np.nonzero(inside)
    if not len(rows):
        return None
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def _local(frames: Frames, inside: NDArray[np.bool_], caption: str | None, clip: Clip) -> tuple[float, float]:
    region = box(inside)
    if region is None:
        return math.nan, math.nan
    crops = [official.crop(image, region) for image in (frames.edited, frames.target) if image is not None]
    features = clip.images(crops)
    lc_i = float(features[0] @ features[1]) if frames.target is not None else math.nan
    if not (caption or "").replace("|", "").strip():
        return lc_i, math.nan
    return lc_i, official.text_score(features[0], clip.texts(official.captions(caption)))
