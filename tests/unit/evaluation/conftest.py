from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.tiny_clip import save_tiny_clip
from rc_grpo.evaluation.clip import Clip
from rc_grpo.evaluation.compbench.frames import Frames

SIDE = 64


def flat(level, side=SIDE):
    return np.full((side, side, 3), level, np.uint8)


def masked(rows=slice(0), columns=slice(0), level=255, side=SIDE):
    mask = np.zeros((side, side), np.uint8)
    mask[rows, columns] = level
    return mask


def frames(source=100, edited=100, mask=None, target=None):
    """Frames of flat images, or of the arrays that are given."""
    source, edited = (flat(image) if isinstance(image, int) else image for image in (source, edited))
    target = flat(target) if isinstance(target, int) else target
    return Frames(source, edited, masked() if mask is None else mask, target)


class KnownClip(Clip):
    """Gives features that are known beforehand, and remembers what it was asked about."""

    def __init__(self, images=((1.0, 0.0), (0.6, 0.8)), texts=None):
        self._given = np.array(images)
        self._of_text = texts or {}
        self.crops = []
        self.asked = []

    def images(self, crops):
        self.crops = [crop.copy() for crop in crops]
        return self._given[: len(crops)]

    def texts(self, captions: Sequence[str]):
        self.asked = list(captions)
        return np.array([self._of_text.get(caption, (0.0, 1.0)) for caption in captions])


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))
