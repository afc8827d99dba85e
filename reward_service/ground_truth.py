"""The ground-truth judge: EditScore's four questions answered from the true target and mask by simple, honest measures.

For worlds that know the answer (the pocket world; data sets with a target). No model, no opinion:

- success: how far the edited region went from the source's pixels to the target's.
- over_editing: how little the rest moved away from the source.
- naturalness: whether local contrast in the region is that of the target (a blurred or washed-out patch is not).
- artifacts: whether the image has fine structure that neither source nor target has (ringing, blocks, noise).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.editor.geometry import binary_mask, resize_image, resize_mask
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from reward_service.judge import ARTIFACTS, FULL_MARKS, NATURALNESS, OVER_EDITING, SUCCESS, Verdict

HALF_MARKS_DRIFT = 0.06
"""RMS change outside the mask (of 0..1) that costs half the marks."""

HALF_MARKS_ROUGHNESS = 0.02
"""RMS excess of fine structure that costs half the marks."""

CONTRAST_FLOOR = 0.02
"""Local standard deviation below which a patch counts as flat."""

MARKS = (SUCCESS, OVER_EDITING, NATURALNESS, ARTIFACTS)
"""The order of a row of marks."""


class GroundTruthJudge:
    """Judges edits of tasks whose true result is known."""

    name = "ground_truth"

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; source, target and mask are resized to them as for editing."""
        if task.target is None:
            return [Verdict.failure(f"task {task.task_id} has no target image to compare with")] * len(images)
        height, width = images.shape[1:3]
        source = _planes(resize_image(decode_rgb(task.source), height, width)[None])
        target = _planes(resize_image(decode_rgb(task.target), height, width)[None])
        inside = torch.from_numpy(resize_mask(binary_mask(task.mask), height, width).copy())[None, None]
        marks = measure(_planes(images), source, target, inside).tolist()
        return [Verdict.from_subscores(dict(zip(MARKS, row, strict=True))) for row in marks]


def measure(edited: Tensor, source: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Mark a batch of edits, on whatever device they are.

    Args:
        edited: RGB ``[B, 3, H, W]`` float32 in 0..1.
        source: of the same form, or with one row for all.
        target: of the same form, or with one row for all.
        inside: share of each pixel inside the mask ``[B, 1, H, W]`` or ``[1, 1, H, W]``, float32 in 0..1.

    Returns:
        Marks ``[B, 4]`` float32, 0..25, in the order of `MARKS`.
    """
    asked = _rms(target - source, inside).clamp(min=1e-6)
    success = (1.0 - _rms(edited - target, inside) / asked).clamp(0.0, 1.0)
    drift = _rms(edited - source, 1.0 - inside)
    excess = (_roughness(edited) - torch.maximum(_roughness(source), _roughness(target))).clamp(min=0)
    roughness = excess.square().mean(dim=(1, 2, 3)).sqrt()
    shares = (
        success,
        _falling(drift, HALF_MARKS_DRIFT),
        _contrast_agreement(edited, target, inside),
        _falling(roughness, HALF_MARKS_ROUGHNESS),
    )
    return FULL_MARKS * torch.stack(shares, dim=1)


def _planes(images: NDArray[np.uint8]) -> Tensor:
    """RGB ``[B, H, W, 3]`` uint8 to ``[B, 3, H, W]`` float32 in 0..1."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 255


def _rms(difference: Tensor, weights: Tensor) -> Tensor:
    """Root mean square ``[B]`` over channels and weighted pixels; 0 where no pixel has weight."""
    total = weights.sum(dim=(1, 2, 3)) * difference.shape[1]
    return ((difference.square() * weights).sum(dim=(1, 2, 3)) / total.clamp(min=1e-9)).sqrt()


def _falling(value: Tensor, half: float) -> Tensor:
    """1 at 0, a half at ``half``, towards 0 beyond."""
    return 1.0 / (1.0 + (value / half) ** 2)


def _roughness(images: Tensor) -> Tensor:
    """Strength of pixel-scale structure ``[B, 1, H, W]``: the Laplacian of luminance, averaged over 5x5 pixels."""
    luminance = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    # Shifted sums, not a convolution: on a GPU that may be rounded to TF32, and the marks would differ.
    middle = luminance[:, :, 1:-1, 1:-1]
    cross = (
        luminance[:, :, :-2, 1:-1] + luminance[:, :, 2:, 1:-1] + luminance[:, :, 1:-1, :-2] + luminance[:, :, 1:-1, 2:]
    )
    return F.avg_pool2d((cross / 4 - middle).abs(), 5, stride=1, padding=2, count_include_pad=False)


def _contrast_agreement(edited: Tensor, target: Tensor, inside: Tensor) -> Tensor:
    """Mean ``[B]`` over the region of the ratio (smaller over larger) of local contrasts in 9x9 windows, 0..1."""
    mine, true = (_local_contrast(images) + CONTRAST_FLOOR for images in (edited, target))
    agreement = torch.minimum(mine, true) / torch.maximum(mine, true)
    return (agreement * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3))


def _local_contrast(images: Tensor) -> Tensor:
    luminance = images.mean(1, keepdim=True)
    mean = F.avg_pool2d(luminance, 9, stride=1, padding=4, count_include_pad=False)
    square = F.avg_pool2d(luminance.square(), 9, stride=1, padding=4, count_include_pad=False)
    return (square - mean.square()).clamp(min=0).sqrt()
