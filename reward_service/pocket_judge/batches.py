"""A batch of labelled edits: what the judge sees, what the teacher says, and where in the picture it is so."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from reward_service.ground_truth import measure
from reward_service.pocket_judge.architecture import MERGE, PATCH
from reward_service.pocket_judge.edits import candidates
from reward_service.pocket_judge.material import Material

MAPS = 4
"""Kinds of maps: see `Batch.maps`."""


@dataclass(frozen=True)
class Batch:
    """``B`` scenes with ``C`` candidates each.

    Attributes:
        source: ``[B, 3, 128, 128]`` float32 in 0..1.
        edited: ``[B, C, 3, 128, 128]``.
        marks: the teacher's, 0..25, ``[B, C, 4]``.
        maps: for each token's square of 16x16 pixels ``[B, C, 64, 4]``: RMS distance from edited to source, from
            edited to target and from source to target, and the share inside the mask.
    """

    source: Tensor
    edited: Tensor
    marks: Tensor
    maps: Tensor


def label(source: Tensor, target: Tensor, inside: Tensor, edited: Tensor) -> Batch:
    """Let the teacher mark candidates ``[B, C, 3, 128, 128]`` of scenes ``[B, ...]``."""
    count = edited.shape[1]
    flat = edited.flatten(0, 1)
    repeated = [part.repeat_interleave(count, dim=0) for part in (source, target, inside)]
    marks = measure(flat, *repeated).reshape(len(source), count, -1)
    pairs = ((flat, repeated[0]), (flat, repeated[1]), (repeated[0], repeated[1]))
    distances = [_squares((one - other).square()).sqrt() for one, other in pairs]
    maps = torch.stack([*distances, _squares(repeated[2])], dim=-1)
    return Batch(source, edited, marks, maps.reshape(len(source), count, -1, MAPS))


def make(scenes: Material) -> Batch:
    """Edit scenes in every quality and label the edits.

    Half of the scenes are recoloured, all their images alike: the photographs have few colours, and the judge is for
    others.
    """
    edited = candidates(scenes)
    some = scenes.happens(0.5)
    gamma = 1 + some * scenes.uniform(-0.35, 0.35)
    gain = 1 - some * scenes.uniform(0, 0.3, channels=3)
    lift = (1 - gain) * scenes.uniform(0, 1)

    def recolour(images: Tensor) -> Tensor:
        # Back to 8 bits, as everything a judge ever sees.
        return ((images**gamma * gain + lift) * 255).round() / 255

    shown = torch.stack([recolour(edited[:, column]) for column in range(edited.shape[1])], dim=1)
    return label(recolour(scenes.source), recolour(scenes.target), scenes.inside, shown)


def _squares(images: Tensor) -> Tensor:
    """Mean over channels and each token's pixels, ``[B, 64]``."""
    return functional.avg_pool2d(images.mean(dim=1, keepdim=True), PATCH * MERGE).flatten(1)
