"""Region preservation: how much of the source an edit left alone outside the mask. No model to ask, no opinion."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.config import RegionPreservationConfig
from rc_grpo.editor.geometry import binary_mask, resize_image, resize_mask
from rc_grpo.evaluation.compbench import corrected
from rc_grpo.evaluation.compbench.frames import planes
from rc_grpo.evaluation.lpips import Lpips, LpipsUnavailableError
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.local.device import device_of

Measure = Callable[[Tensor, Tensor, NDArray[np.bool_]], float]
"""Of source and edit ``[1, 3, H, W]`` float32 in 0..1 and the inside ``[H, W]``; NaN where nothing lies outside."""


class RegionPreservationJudge:
    """Scores edits by what they left alone; 1 is everything.

    A pixel that the mask covers in part counts as inside. The full frame's size does not matter: each measure is a mean
    over the outside alone, so that tasks with large masks are marked by the same measure as those with small ones.

    Args:
        measure: what is compared outside.
        lpips: for the measure of that name.
    """

    def __init__(self, measure: Literal["ssim", "lpips", "pixels"], lpips: Lpips | None = None) -> None:
        self.name = f"region_preservation:{measure}"
        self._measure: Measure
        match measure:
            case "ssim":
                self._measure = corrected.ssim
            case "pixels":
                self._measure = _pixels_kept
            case "lpips":
                assert lpips is not None
                self._measure = lambda source, edit, inside: 1.0 - corrected.masked_lpips(source, edit, inside, lpips)

    @classmethod
    def load(cls, config: RegionPreservationConfig) -> "RegionPreservationJudge":
        """Load what the measure needs.

        Raises:
            JudgeSetupError: LPIPS cannot be measured here; says why and names a measure that can.
        """
        if config.measure != "lpips":
            return cls(config.measure)
        try:
            return cls("lpips", Lpips.load(device_of(config)))
        except LpipsUnavailableError as error:
            raise JudgeSetupError(f"{error}; or use measure: ssim or pixels, which need no weights") from error

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; source and mask are resized to them as for editing."""
        height, width = images.shape[1:3]
        source = planes(resize_image(decode_rgb(task.source), height, width))
        inside = resize_mask(binary_mask(task.mask), height, width) > 0
        marks = [self._measure(source, planes(image), inside) for image in images]
        if any(map(math.isnan, marks)):
            why = f"the mask of {task.task_id} leaves nothing outside that {self.name} can compare"
            return [Verdict.failure(why)] * len(images)
        return [Verdict(mark) for mark in marks]


def _pixels_kept(source: Tensor, edit: Tensor, inside: NDArray[np.bool_]) -> float:
    outside = torch.from_numpy(~inside)
    if not outside.any():
        return math.nan
    return 1.0 - float((edit - source)[0, :, outside].double().square().mean().sqrt())
