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


class GroundTruthJudge:
    """Judges edits of tasks whose true result is known."""

    name = "ground_truth"

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; source, target and mask are resized to them as for editing."""
        if task.target is None:
            return [Verdict.failure(f"task {task.task_id} has no target image to compare with")] * len(images)
        height, width = images.shape[1:3]
        source = _planes(resize_image(decode_rgb(task.source), height, width))
        target = _planes(resize_image(decode_rgb(task.target), height, width))
        inside = torch.from_numpy(resize_mask(binary_mask(task.mask), height, width).copy())
        return [self._judge(_planes(image), source, target, inside) for image in images]

    def _judge(self, edited: Tensor, source: Tensor, target: Tensor, inside: Tensor) -> Verdict:
        outside = 1.0 - inside
        asked = _rms(target - source, inside)
        missing = _rms(edited - target, inside)
        drift = _rms(edited - source, outside)
        excess = (_roughness(edited) - torch.maximum(_roughness(source), _roughness(target))).clamp(min=0)
        return Verdict.from_subscores(
            {
                SUCCESS: FULL_MARKS * float(np.clip(1.0 - missing / max(asked, 1e-6), 0.0, 1.0)),
                OVER_EDITING: _falling(drift, HALF_MARKS_DRIFT),
                NATURALNESS: FULL_MARKS * _contrast_agreement(edited, target, inside),
                ARTIFACTS: _falling(_rms(excess, torch.ones_like(inside)), HALF_MARKS_ROUGHNESS),
            }
        )


def _planes(image: NDArray[np.uint8]) -> Tensor:
    """RGB ``[H, W, 3]`` uint8 to ``[3, H, W]`` float32 in 0..1."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255


def _rms(difference: Tensor, weights: Tensor) -> float:
    """Root mean square over channels and weighted pixels; 0 where no pixel has weight."""
    total = float(weights.sum()) * difference.shape[0]
    return (float((difference.square() * weights).sum()) / total) ** 0.5 if total > 0 else 0.0


def _falling(value: float, half: float) -> float:
    """Full marks at 0, half at ``half``, towards 0 beyond."""
    return FULL_MARKS / (1.0 + (value / half) ** 2)


def _roughness(image: Tensor) -> Tensor:
    """Strength of pixel-scale structure ``[1, H, W]``: the Laplacian of luminance, averaged over 5x5 pixels."""
    luminance = image.mean(0, keepdim=True)[None]
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None] / 4
    laplacian = F.conv2d(F.pad(luminance, (1, 1, 1, 1), mode="replicate"), kernel)
    return F.avg_pool2d(laplacian.abs(), 5, stride=1, padding=2, count_include_pad=False)[0]


def _contrast_agreement(edited: Tensor, target: Tensor, inside: Tensor) -> float:
    """Mean over the region of the ratio (smaller over larger) of local contrasts in 9x9 windows, 0..1."""
    mine, true = (_local_contrast(image) + CONTRAST_FLOOR for image in (edited, target))
    agreement = torch.minimum(mine, true) / torch.maximum(mine, true)
    return float((agreement * inside).sum() / inside.sum())


def _local_contrast(image: Tensor) -> Tensor:
    luminance = image.mean(0, keepdim=True)[None]
    mean = F.avg_pool2d(luminance, 9, stride=1, padding=4, count_include_pad=False)
    square = F.avg_pool2d(luminance.square(), 9, stride=1, padding=4, count_include_pad=False)
    return (square - mean.square()).clamp(min=0).sqrt()[0, 0]
