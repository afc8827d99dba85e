"""An edit by the stock pipeline, seen from inside: its levels, its states, its first velocity, its image."""

from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.registry import find
from rc_grpo.images import Pixels


@dataclass(frozen=True, eq=False)
class StockEdit:
    """What a pipeline went through.

    Attributes:
        sigmas: ``[T+1]`` float64, its scheduler's levels.
        states: ``[T, 1, N, C]`` float32, the target's latents ahead of each step.
        velocity: the first step's, ``[1, N, C]`` float32, guided as the pipeline guides it.
        image: ``[H, W, 3]`` uint8.
    """

    sigmas: Tensor
    states: Tensor
    velocity: Tensor
    image: Pixels


def stock_edit(
    pipeline: Any, editor: EditorConfig, source: Pixels, instruction: str, *references: Pixels, steps: int, seed: int
) -> StockEdit:
    """Edit with the stock pipeline, as anyone with diffusers would, and look on.

    Args:
        pipeline: diffusers' own, whole.
        editor: its configuration.
        source: at the size it is edited at.
        instruction: what to do.
        references: further source images.
        steps: two or more.
        seed: of the noise.
    """
    states: list[Tensor] = []
    velocities: list[Tensor] = []
    take_step = pipeline.scheduler.step

    def seen(velocity: Tensor, timestep: Any, state: Tensor, *rest: Any, **named: Any) -> Any:
        # Not from the states: in bfloat16 a small step between two of them is mostly their rounding.
        velocities.append(velocity.float())
        states.append(state.float().clone())
        return take_step(velocity, timestep, state, *rest, **named)

    with mock.patch.object(pipeline.scheduler, "step", seen):
        image = find(editor).edit(pipeline, editor, source, instruction, *references, steps=steps, seed=seed)
    return StockEdit(pipeline.scheduler.sigmas.cpu().double(), torch.stack(states), velocities[0], image)
