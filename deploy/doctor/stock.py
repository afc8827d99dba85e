"""An edit by the stock pipeline, seen from inside: its levels, its states, its image."""

from dataclasses import dataclass
from typing import Any

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
        image: ``[H, W, 3]`` uint8.
    """

    sigmas: Tensor
    states: Tensor
    image: Pixels

    @property
    def velocity(self) -> Tensor:
        """The first step's velocity ``[1, N, C]``, guided as the pipeline guides it."""
        return (self.states[1] - self.states[0]) / float(self.sigmas[1] - self.sigmas[0])


def stock_edit(
    pipeline: Any, editor: EditorConfig, source: Pixels, instruction: str, tokens: int, *, steps: int, seed: int
) -> StockEdit:
    """Edit with the stock pipeline, as anyone with diffusers would, and look on.

    Args:
        pipeline: diffusers' own, whole.
        editor: its configuration.
        source: at the size it is edited at.
        instruction: what to do.
        tokens: of the target; they come first in what the transformer is given.
        steps: two or more.
        seed: of the noise.
    """
    seen: list[Tensor] = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda module, arguments, named: seen.append(named["hidden_states"][:, :tokens].float().clone()),
        with_kwargs=True,
    )
    try:
        image = find(editor).edit(pipeline, editor, source, instruction, steps=steps, seed=seed)
    finally:
        hook.remove()
    # A step has one pass, or two of the same states.
    states = torch.stack(seen[:: len(seen) // steps])
    return StockEdit(pipeline.scheduler.sigmas.cpu().double(), states, image)
