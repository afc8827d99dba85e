"""CompBench's metrics as its published script computes them (comp-bench/CompBench, eval_all.py), traps included.

Kept as they are, because numbers are compared with the paper's: masked pixels count as identical, so that PSNR grows
with the mask; an identical background has infinite PSNR; the levels of the mask are weights, so that a 0/1 mask hides
next to nothing; the box loses its last row and column; an empty box scores 0. `corrected` stands beside it.
"""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from rc_grpo.evaluation.clip import Clip
from rc_grpo.evaluation.compbench.frames import Frames, plane, planes
from rc_grpo.evaluation.compbench.scores import Scores
from rc_grpo.evaluation.lpips import Lpips
from rc_grpo.images import Pixels

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, right and bottom exclusive, as `PIL.Image.crop` takes it."""

EMPTY_BOX = 0.0
"""What the script gives an edit for which there is no region."""


def measure(frames: Frames, caption: str | None, clip: Clip | None, lpips: Lpips | None) -> Scores:
    """Measure one edit.

    Args:
        frames: from `Frames.read`.
        caption: what the region shows; several are separated by ``|``.
        clip: None leaves LC-I and LC-T out.
        lpips: None leaves LPIPS out.
    """
    source, edited = background(frames)
    lc_i, lc_t = (math.nan, math.nan) if clip is None else _local(frames, captions(caption), clip)
    ssim = structural_similarity_index_measure(edited, source, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return Scores(
        lc_i=lc_i,
        lc_t=lc_t,
        psnr=float(peak_signal_noise_ratio(edited, source, data_range=1.0)),
        ssim=float(ssim),
        lpips=math.nan if lpips is None else lpips(edited, source),
    )


def background(frames: Frames) -> tuple[Tensor, Tensor]:
    """Return source and edit ``[1, 3, S, S]`` float32, each times ``1 - mask / 255``."""
    outside = plane(np.asarray(1 - frames.mask.astype(np.float32) / 255, dtype=np.float32))
    return planes(frames.source) * outside, planes(frames.edited) * outside


def box(mask: Pixels) -> Box | None:
    """Return the box of the levels above 0 of a mask ``[h, w]``: its inclusive ends, which the script then crops with.

    Returns:
        None where nothing is left of it: no pixel, a single row or a single column.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return None
    left, top, right, bottom = int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())
    return (left, top, right, bottom) if right > left and bottom > top else None


def captions(text: str | None) -> list[str]:
    """Split a caption at ``|``. Where there is none the script asks CLIP about a blank, and so does this."""
    return [part for part in (text or "").split("|") if part.strip()] or [" "]


def crop(image: Pixels, box: Box) -> Pixels:
    """Return the part of an image ``[h, w, 3]`` in a box."""
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def text_score(image: NDArray[np.float64], texts: NDArray[np.float64]) -> float:
    """Return LC-T of unit features ``[d]`` and ``[captions, d]``: the mean over captions of ``100 max(cos, 0)``."""
    return float(np.mean(np.maximum(100 * (texts @ image), 0)))


def _local(frames: Frames, texts: list[str], clip: Clip) -> tuple[float, float]:
    region = box(frames.mask)
    if region is None:
        return EMPTY_BOX, EMPTY_BOX
    crops = [crop(image, region) for image in (frames.edited, frames.target) if image is not None]
    features = clip.images(crops)
    lc_i = float(features[0] @ features[1]) if frames.target is not None else math.nan
    return lc_i, text_score(features[0], clip.texts(texts))
