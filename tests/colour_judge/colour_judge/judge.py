"""The judge itself; imported where it scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rc_grpo.editor.geometry import binary_mask, resize_mask
from rc_grpo.messages import EditTask
from reward_service.judge import Verdict


class ColourJudge:
    """Scores by the mean colour inside the mask.

    Args:
        colour: red, green, blue; 0..255.
        half_at: distance in levels at which the reward is a half.
    """

    name = "colour"

    def __init__(self, colour: Sequence[int], half_at: float) -> None:
        self._colour = np.array(colour, dtype=np.float64)
        self._half_at = half_at

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> list[Verdict]:
        """Score images ``[G, H, W, 3]``."""
        inside = resize_mask(binary_mask(task.mask), *images.shape[1:3]).astype(np.float64)
        if not inside.any():
            return [Verdict.failure(f"the mask of {task.task_id} is empty at {images.shape[1:3]}")] * len(images)
        means = np.einsum("ghwc,hw->gc", images.astype(np.float64), inside) / inside.sum()
        distances = np.linalg.norm(means - self._colour, axis=1)
        return [
            Verdict(float(1.0 / (1.0 + (distance / self._half_at) ** 2)), reason=f"{distance:.0f} levels away")
            for distance in distances
        ]
