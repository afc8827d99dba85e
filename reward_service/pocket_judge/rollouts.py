"""What the pocket editor makes of scenes, in batches: the edits that the judge meets in reinforcement learning.

And what a better editor would make: its latents moved part of the way to the true target's inside the mask, and to the
source's outside, then decoded by the same autoencoder.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.algorithm.perturbation import candidate_noise
from rc_grpo.pocket.batches import CHANNELS, TOKEN, TOKENS, PocketBatches
from rc_grpo.pocket.making.pairs import Scenes

STEPS = (6, 8, 16)
"""Solver steps; each batch of scenes takes the next."""

ALPHA_EDIT, ALPHA_BASE = 0.5, 0.05
"""How far a group's noises are apart inside and outside the mask: the pocket run's own."""

EDITS, IMPROVED, RECONSTRUCTED = 4, 2, 2


@dataclass(frozen=True)
class Rollouts:
    """Images of ``B`` scenes, uint8 ``[B, n, 3, 128, 128]``.

    Attributes:
        edits: by the editor: the group's reference noise, two neighbours of it, and an unrelated noise (n = 4).
        improved: blends of the first edits with source and target (n = 2).
        reconstructed: source and target through the autoencoder (n = 2).
    """

    edits: Tensor
    improved: Tensor
    reconstructed: Tensor


def roll_out(editor: PocketBatches, scenes: Scenes, batch: int, generator: torch.Generator) -> Rollouts:
    """Edit every scene `EDITS` times, ``batch`` scenes at a time."""
    rows = torch.split(torch.arange(len(scenes)), batch)
    parts = [_batch(editor, scenes, part, STEPS[number % len(STEPS)], generator) for number, part in enumerate(rows)]
    edits, improved, reconstructed = (torch.cat(images) for images in zip(*parts, strict=True))
    return Rollouts(edits, improved, reconstructed)


@torch.no_grad()
def _batch(
    editor: PocketBatches, scenes: Scenes, rows: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    source, target = (editor.encode(images[rows]) for images in (scenes.source, scenes.target))
    inside = functional.max_pool2d((scenes.mask[rows] > 0).float(), TOKEN).flatten(1)
    noise = torch.stack([group_noise(mask, generator) for mask in inside])
    edited = editor.edit(source, noise, [scenes.instructions[row] for row in rows], steps)
    goal = torch.where(inside[..., None] > 0, target, source)[:, None].expand(-1, IMPROVED, -1, -1)
    # Inside and outside the mask apart: an edit may get better before the background does.
    shares = torch.rand(len(rows), IMPROVED, 2, 1, device=source.device, generator=generator)
    share = torch.where(inside[:, None] > 0, shares[:, :, 0], shares[:, :, 1])[..., None]
    improved = torch.lerp(edited[:, :IMPROVED], goal, share)
    return tuple(map(editor.decode, (edited, improved, torch.stack([source, target], dim=1))))


def group_noise(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noises ``[4, 64, 64]`` for one scene: reference, two neighbours, one that is unrelated; mask ``[64]``."""
    drawn = torch.randn(EDITS, TOKENS, CHANNELS, device=mask.device, generator=generator)
    near = candidate_noise(drawn[0], drawn[1 : EDITS - 1], mask, ALPHA_EDIT, ALPHA_BASE)
    return torch.cat([near, drawn[EDITS - 1 :]])
