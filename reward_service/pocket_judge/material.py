"""What training edits are made from: scenes, the editor's rollouts of them, and objects to put where none belong.

All of it is uint8 on the training device; a batch is cut out, changed and labelled there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rc_grpo.pocket.making.pairs import Scenes
from rc_grpo.pocket.photographs import ASSETS
from rc_grpo.pocket.world import IMAGE_SIZE, PLACES, SIZES, SPRITES
from reward_service.pocket_judge.rollouts import Rollouts


@dataclass(frozen=True)
class Material:
    """``B`` scenes in 0..1 float32, all images ``[B, 3, 128, 128]`` unless said otherwise.

    Attributes:
        source: before the edit.
        target: the true result.
        inside: 1 inside the mask, else 0, ``[B, 1, 128, 128]``.
        edit: one edit by the pocket editor.
        other_edit: another one of the same scene.
        improved: an edit of a better editor.
        rebuilt_source: the source through the autoencoder.
        rebuilt_target: the target through the autoencoder.
        stamps: every object at every place and size, RGBA uint8 ``[n, 4, 128, 128]``.
        generator: of all that is random.
    """

    source: Tensor
    target: Tensor
    inside: Tensor
    edit: Tensor
    other_edit: Tensor
    improved: Tensor
    rebuilt_source: Tensor
    rebuilt_target: Tensor
    stamps: Tensor
    generator: torch.Generator

    def __len__(self) -> int:
        return len(self.source)

    def part(self, rows: slice) -> "Material":
        """Return some of the scenes."""
        names = ("source", "target", "inside", "edit", "other_edit", "improved", "rebuilt_source", "rebuilt_target")
        return Material(
            **{name: getattr(self, name)[rows] for name in names}, stamps=self.stamps, generator=self.generator
        )

    def uniform(self, low: float, high: float, channels: int = 1) -> Tensor:
        """Draw ``[B, channels, 1, 1]`` numbers."""
        drawn = torch.rand(len(self), channels, 1, 1, device=self.source.device, generator=self.generator)
        return low + (high - low) * drawn

    def happens(self, share: float) -> Tensor:
        """Draw ``[B, 1, 1, 1]`` ones (with this probability) and zeros."""
        return (self.uniform(0, 1) < share).float()

    def normal(self, height: int = IMAGE_SIZE) -> Tensor:
        """Draw N(0, 1) numbers ``[B, 3, height, height]``."""
        return torch.randn(len(self), 3, height, height, device=self.source.device, generator=self.generator)

    def integers(self, high: int) -> Tensor:
        """Draw ``[B]`` integers below ``high``."""
        return torch.randint(high, (len(self),), device=self.source.device, generator=self.generator)


def pick(scenes: Scenes, rollouts: Rollouts, stamps: Tensor, rows: Tensor, generator: torch.Generator) -> Material:
    """Cut scenes ``rows [B]`` out, each with two different edits and one improved edit at random."""
    edits, improved = rollouts.edits[rows], rollouts.improved[rows]
    device, index = rows.device, torch.arange(len(rows), device=rows.device)
    order = torch.rand(edits.shape[:2], device=device, generator=generator).argsort(dim=1)
    better = torch.randint(improved.shape[1], (len(rows),), device=device, generator=generator)
    source, target = unit(scenes.source[rows]), unit(scenes.target[rows])
    inside = (scenes.mask[rows] > 0).float()
    rebuilt = unit(rollouts.reconstructed[rows])
    first, second = unit(edits[index, order[:, 0]]), unit(edits[index, order[:, 1]])
    improved = unit(improved[index, better])
    return Material(source, target, inside, first, second, improved, rebuilt[:, 0], rebuilt[:, 1], stamps, generator)


def unit(pixels: Tensor) -> Tensor:
    """Map uint8 levels to float32 in 0..1."""
    return pixels.float() / 255


def stamps(device: torch.device) -> Tensor:
    """Draw every object alone at every place and size: RGBA uint8 ``[9 * 2 * 18, 4, 128, 128]``, places outermost."""
    drawn = []
    for y, x in PLACES.values():
        for side in SIZES.values():
            for name in SPRITES:
                canvas = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 4), np.uint8)
                top, left = y - side // 2, x - side // 2
                with Image.open(ASSETS / "sprites" / f"{name}.png") as image:
                    sprite = image.convert("RGBA").resize((side, side), Image.Resampling.LANCZOS)
                canvas[top : top + side, left : left + side] = np.asarray(sprite)
                drawn.append(torch.from_numpy(canvas).permute(2, 0, 1))
    return torch.stack(drawn).contiguous().to(device)
