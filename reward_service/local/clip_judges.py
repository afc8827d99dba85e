"""Judges by CLIP: directional similarity, and PickScore; a group's images go through the model at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rc_grpo.config import ClipDirectionConfig, PickScoreConfig
from rc_grpo.editor.geometry import resize_image
from rc_grpo.evaluation.clip import Clip
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from reward_service.judge import Verdict
from reward_service.local.clip_loading import clip_of
from reward_service.local.device import device_of

ROUNDING = 1e-5
"""Length of a step between unit features below which it is float32's rounding, whose direction means nothing."""


class ClipDirectionJudge:
    """Scores by the cosine of two directions in CLIP's space: source to edit, source's words to the caption.

    An edit whose features are the source's has no direction: its cosine is 0, as torch's `cosine_similarity` has it.
    Of several captions, separated by ``|``, the mean direction counts. The reward is ``(1 + cosine) / 2``.

    Args:
        clip: the model.
        source_caption: what the source shows, in words that hold for every task.
    """

    def __init__(self, clip: Clip, source_caption: str) -> None:
        self.name = "clip_direction"
        self._clip = clip
        self._source_caption = source_caption

    @classmethod
    def load(cls, config: ClipDirectionConfig) -> "ClipDirectionJudge":
        """Load the model.

        Raises:
            JudgeSetupError: the model or its processor is not to be had, or its weights are no safetensors.
        """
        with clip_of(config):
            clip = Clip.load(config.model, device_of(config), revision=config.revision)
        return cls(clip, config.source_caption)

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the source is resized to them as for editing."""
        if not (wanted := _captions(task)):
            return _without_caption(task, len(images))
        source = resize_image(decode_rgb(task.source), *images.shape[1:3])
        seen, said = self._clip.images([source, *images]), self._clip.texts([self._source_caption, *wanted])
        moved, meant = seen[1:] - seen[0], said[1:].mean(axis=0) - said[0]
        return [_scored(cosine) for cosine in _cosines(moved, meant)]


class PickScoreJudge:
    """Scores by the cosine of edit and caption in PickScore's space; of several captions, separated by ``|``, the mean.

    The reward is ``(1 + cosine) / 2``; the published number is the cosine times the model's own constant, about 100.

    Args:
        clip: the model.
    """

    def __init__(self, clip: Clip) -> None:
        self.name = "pickscore"
        self._clip = clip

    @classmethod
    def load(cls, config: PickScoreConfig) -> "PickScoreJudge":
        """Load the model.

        Raises:
            JudgeSetupError: the model or its processor is not to be had, or its weights are no safetensors.
        """
        with clip_of(config):
            return cls(Clip.load(config.model, device_of(config), revision=config.revision, processor=config.processor))

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the source plays no part."""
        if not (wanted := _captions(task)):
            return _without_caption(task, len(images))
        cosines = self._clip.images(list(images)) @ self._clip.texts(wanted).T
        return [_scored(cosine) for cosine in cosines.mean(axis=1)]


def _captions(task: EditTask) -> list[str]:
    return [part for part in (task.caption or "").split("|") if part.strip()]


def _cosines(moved: NDArray[np.float64], meant: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine ``[G]`` of rows ``moved`` ``[G, d]`` with ``meant`` ``[d]``; 0 where one is no direction."""
    lengths, length = np.linalg.norm(moved, axis=1), np.linalg.norm(meant)
    directed = (lengths > ROUNDING) & (length > ROUNDING)
    return np.where(directed, (moved @ meant) / np.where(directed, lengths * length, 1.0), 0.0)


def _scored(cosine: float) -> Verdict:
    return Verdict(float((1.0 + cosine) / 2.0), reason=f"cosine {cosine:.4f}")


def _without_caption(task: EditTask, size: int) -> list[Verdict]:
    return [Verdict.failure(f"task {task.task_id} has no caption to compare with")] * size
