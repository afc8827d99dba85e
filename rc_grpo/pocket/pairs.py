"""Training pairs on the device, imperfect on purpose.

Pairs scraped from the web are noisy: the edit is half-hearted, or it spills over the rest of the picture. These pairs
are made the same way, each with its own draw. Flow matching learns that distribution, so afterwards the noise seed
decides whether an edit comes out weak or spilled: the head-room, and the within-group variance, that reinforcement
learning needs.
"""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.pocket.photographs import Split
from rc_grpo.pocket.world import PLACES, PocketWorld

PRETRAINING_SEED = 1
"""The world the editor is trained on; reinforcement learning's tasks (seed 0) are other draws of these photographs."""

WEAK_SHARE, WEAKEST = 0.5, 0.25
"""Share of pairs whose edit is only partly carried out, and the least opacity among them."""

SPILL_SHARE = 0.5
"""Share of pairs whose target also changes where it should not."""

_CHUNK = 500


@dataclass(frozen=True)
class Scenes:
    """Clean scenes: ``source`` and ``target`` ``[B, 3, 128, 128]``, ``mask`` ``[B, 1, 128, 128]``, all uint8."""

    source: Tensor
    target: Tensor
    mask: Tensor
    instructions: list[str]

    def __len__(self) -> int:
        return len(self.instructions)


def generate(split: Split, size: int, workers: int, device: torch.device, seed: int = PRETRAINING_SEED) -> Scenes:
    """Compose scenes 0..size-1 of a world in parallel processes and move them to the device."""
    world = PocketWorld(split, size, seed)
    chunks = [range(start, min(start + _CHUNK, size)) for start in range(0, size, _CHUNK)]
    arrays: list[list[Tensor]] = [[], [], []]
    instructions: list[str] = []
    with ProcessPoolExecutor(workers) as pool:
        for source, target, mask, texts in pool.map(_chunk, [world] * len(chunks), chunks):
            for store, array in zip(arrays, (source, target, mask), strict=True):
                store.append(torch.from_numpy(array).to(device))
            instructions += texts
    sources, targets, masks = (torch.cat(store) for store in arrays)
    sources, targets = (images.permute(0, 3, 1, 2).contiguous() for images in (sources, targets))
    return Scenes(sources, targets, masks[:, None], instructions)


def _chunk(world: PocketWorld, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    scenes = [world.scene(index) for index in indices]
    source, target, mask = (
        np.stack([getattr(scene, name) for scene in scenes]) for name in ("source", "target", "mask")
    )
    return source, target, mask, [scene.instruction for scene in scenes]


def to_float(pixels: Tensor) -> Tensor:
    """Map uint8 levels to float32 in [-1, 1], the autoencoder's range."""
    return pixels.float() / 127.5 - 1.0


def imperfect(source: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
    """Return noisy targets ``[B, 3, H, W]`` in [-1, 1] from clean pairs in the same form, each with its own faults."""
    count, device = source.shape[0], source.device

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        draw = torch.rand(count, channels, 1, 1, device=device, generator=generator)
        return low + (high - low) * draw

    def happens(share: float) -> Tensor:
        return (uniform(0, 1) < share).float()

    weak = happens(WEAK_SHARE)
    opacity = weak * uniform(WEAKEST, 1.0) + (1 - weak)
    edited = torch.lerp(source, target, opacity)

    spilled = happens(SPILL_SHARE)
    ghost = spilled * happens(0.3) * uniform(0.25, 0.6)
    result = edited + ghost * _moved(target - source, generator)
    tint = spilled * happens(0.6) * uniform(-0.18, 0.18, channels=3)
    brightness = spilled * happens(0.6) * uniform(-0.25, 0.25)
    contrast = 1 + spilled * happens(0.4) * uniform(-0.35, 0.25)
    blur = spilled * happens(0.3) * uniform(0.4, 1.0)
    result = torch.lerp(result, functional.avg_pool2d(result, 5, 1, 2, count_include_pad=False), blur)
    mean = result.mean(dim=(1, 2, 3), keepdim=True)
    return ((result - mean) * contrast + mean + tint + brightness).clamp(-1, 1)


def _moved(difference: Tensor, generator: torch.Generator) -> Tensor:
    """Return what an edit changed, moved by one or two places of the grid, wrapping round, alike for the batch."""
    (y, _), (_, x) = PLACES["top center"], PLACES["center left"]
    (middle, _) = PLACES["center"]
    steps = [int(torch.randint(1, 3, (), generator=generator, device=generator.device)) for _ in range(2)]
    return torch.roll(difference, (steps[0] * (middle - y), steps[1] * (middle - x)), dims=(2, 3))
