"""Scenes and training pairs, composed by worker processes ahead of whoever reads them.

A pair's target is an *outcome*, in a mode of `rc_grpo.pocket.modes`: flow matching learns their distribution, so
afterwards the noise seed decides whether an edit succeeds.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.pocket.modes import MODES, draw_mode, outcome
from rc_grpo.pocket.objects import mask_of, paint
from rc_grpo.pocket.photographs import Split
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.seeds import derive

PRETRAINING_SEED = 1
"""The world the editor is trained on; reinforcement learning's tasks (seed 0) are other draws of these photographs."""

Result = TypeVar("Result")

_CHUNK = 500
_AHEAD = 2
"""Chunks that wait for the reader, for each worker: 4 GB with 16 workers and four outcomes a scene."""


@dataclass(frozen=True)
class Scenes:
    """Clean scenes: ``source`` and ``target`` ``[B, 3, 128, 128]``, ``mask`` ``[B, 1, 128, 128]``, all uint8."""

    source: Tensor
    target: Tensor
    mask: Tensor
    instructions: list[str]

    def __len__(self) -> int:
        return len(self.instructions)


@dataclass(frozen=True)
class Pairs:
    """``B`` scenes with ``V`` outcomes of each, on the host.

    Attributes:
        source: RGB ``[B, 128, 128, 3]`` uint8.
        outcomes: RGB ``[B, V, 128, 128, 3]`` uint8.
        modes: of the outcomes, ``[B, V]`` uint8, indices of `MODES`.
        mask: ``[B, 128, 128]`` uint8, 255 where the edit belongs and 0 elsewhere.
        instructions: B of them.
    """

    source: NDArray[np.uint8]
    outcomes: NDArray[np.uint8]
    modes: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    instructions: list[str]

    def __len__(self) -> int:
        return len(self.instructions)


def generate(split: Split, size: int, workers: int, device: torch.device, seed: int = PRETRAINING_SEED) -> Scenes:
    """Compose scenes 0..size-1 of a world in parallel processes and move them to the device."""
    world = PocketWorld(split, size, seed)
    arrays: list[list[Tensor]] = [[], [], []]
    instructions: list[str] = []
    for source, target, mask, texts in _ahead(_scenes, [(world, chunk) for chunk in _chunks(range(size))], workers):
        for store, array in zip(arrays, (source, target, mask), strict=True):
            store.append(torch.from_numpy(array).to(device))
        instructions += texts
    sources, targets, masks = (torch.cat(store) for store in arrays)
    sources, targets = (images.permute(0, 3, 1, 2).contiguous() for images in (sources, targets))
    return Scenes(sources, targets, masks[:, None], instructions)


def compose(split: Split, indices: range, variants: int, workers: int, seed: int = PRETRAINING_SEED) -> Iterator[Pairs]:
    """Yield those tasks of a world in order, a few hundred at a time, each with that many outcomes.

    Workers stay a bounded number of parts ahead of the reader. Outcome ``v`` of task ``i`` is a function of (split,
    seed, i, v) alone.
    """
    return _ahead(compose_part, [(split, seed, chunk, variants) for chunk in _chunks(indices)], workers)


def compose_part(split: Split, seed: int, indices: range, variants: int) -> Pairs:
    """Compose some tasks of a world in this process."""
    world = PocketWorld(split, indices.stop, seed)
    plans = [world.plan(index) for index in indices]
    sources, outcomes, modes = [], [], []
    for index, plan in zip(indices, plans, strict=True):
        background = plan.view.pixels()
        sources.append(paint(background, plan.before))
        for variant in range(variants):
            rng = random.Random(derive("pocket-outcome", split, seed, index, variant))
            modes.append(draw_mode(rng))
            outcomes.append(outcome(plan, background, modes[-1], rng))
    form = (len(plans), variants)
    return Pairs(
        np.stack(sources),
        np.stack(outcomes).reshape(*form, *outcomes[0].shape),
        np.array([MODES.index(mode) for mode in modes], np.uint8).reshape(form),
        np.stack([mask_of(plan.edited) for plan in plans]),
        [plan.instruction for plan in plans],
    )


def _scenes(world: PocketWorld, indices: range) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    scenes = [world.scene(index) for index in indices]
    source, target, mask = (
        np.stack([getattr(scene, name) for scene in scenes]) for name in ("source", "target", "mask")
    )
    return source, target, mask, [scene.instruction for scene in scenes]


def _chunks(indices: range) -> list[range]:
    return [indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK)]


def _ahead(function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Result]:
    """Yield the results in the order of the jobs, from so many processes."""
    with ProcessPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for job in jobs:
            waiting.append(pool.submit(function, *job))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def to_float(pixels: Tensor) -> Tensor:
    """Map uint8 levels to float32 in [-1, 1], the autoencoder's range."""
    return pixels.float() / 127.5 - 1.0
