"""What bodies around diffusers' transformers share: the target's grid of tokens, the canary, a timestep's precision."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rc_grpo.config.rollout import Fp8
from rc_grpo.editor.family import Architecture, Forward, Guidance, Text
from rc_grpo.editor.fast import fp8_attention
from rc_grpo.editor.guidance import classifier_free
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Layout
from rc_grpo.editor.stock.arrays import to_tensor
from rc_grpo.editor.stock.attention import Fused
from rc_grpo.messages import Conditions
from rc_grpo.seeds import derive, normal

TOKENS_PER_SIDE_OF_CANARY = 4
TEXT_OF_CANARY = 8


class StockBody(ABC):
    """The part of a `rc_grpo.editor.family.Body` that does not differ.

    Args:
        transformer: on its device and in its dtype.
        blocks: in the order in which ``rollout.acd.layers`` counts.
        architecture: its sizes.
        guidance: how it is guided.
    """

    def __init__(
        self, transformer: nn.Module, blocks: Sequence[Any], architecture: Architecture, guidance: Guidance
    ) -> None:
        self.transformer: Any = transformer
        self.blocks = blocks
        self.architecture = architecture
        self.guidance = guidance
        self.fused: Fused = False

    def arrange(self, *, fp8: Fp8) -> None:
        """Rearrange the blocks for rollouts on a GPU, by `arrange_blocks`, and have attention fuse what it can.

        Raises:
            ValueError: float8 is asked for where there is none, or a target's projection would lose its name.
        """
        if fp8 == "all":
            fp8_attention.check(self.transformer.device, self.transformer.dtype)
        self.arrange_blocks(in_fp8=bool(fp8))
        self.fused = "fp8" if fp8 == "all" else True

    @abstractmethod
    def arrange_blocks(self, *, in_fp8: bool) -> None:
        """Rearrange the blocks; see the family's ``rollout_blocks``."""

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's packed latents."""
        rows, columns = self.grid(conditions.height, conditions.width)
        return rows * columns, int(self.transformer.config.in_channels)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns of tokens of an image of so many pixels."""
        return height // self.architecture.token, width // self.architecture.token

    def varying(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Sequence[tuple[Tensor, int]]:
        """Return none: every text has the same slots."""
        return ()

    def combine(self, positive: Tensor, negative: Tensor, scale: float) -> Tensor:
        """Combine two passes plainly, as most stock pipelines do."""
        return classifier_free(positive, negative, scale)

    def canary(self) -> Conditions:
        """Return fixed random conditions of a few tokens, with a source of the target's size."""
        side = TOKENS_PER_SIDE_OF_CANARY * self.architecture.token
        reference = TOKENS_PER_SIDE_OF_CANARY**2, int(self.transformer.config.in_channels)
        shapes = {"reference": reference, **self.canary_texts()}
        return Conditions(
            height=side,
            width=side,
            arrays={name: normal(derive("canary", name), *shape).numpy() for name, shape in shapes.items()},
            text_valid=np.ones(TEXT_OF_CANARY, dtype=np.bool_),
            sources=((side, side),),
        )

    def canary_texts(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the canary's texts by name; the prompt has `TEXT_OF_CANARY` tokens."""
        width = int(self.transformer.config.joint_attention_dim)
        return {"prompt": (TEXT_OF_CANARY, width), "negative": (TEXT_OF_CANARY, width)}


class StockBound:
    """One text of one task on the device, where everything sees the target: ``[text | target | source]``.

    Args:
        body: of the model.
        conditions: of the task.
        text: which of its texts.
        text_varies: it is of its true length.
    """

    def __init__(self, body: StockBody, conditions: Conditions, text: Text, *, text_varies: bool = False) -> None:
        dtype, device = body.transformer.dtype, body.transformer.device
        arrays = conditions.arrays
        self.text, self.reference = (to_tensor(arrays[name], dtype, device) for name in (text, "reference"))
        slots, tokens = len(self.text), body.latent_shape(conditions)[0]
        self.layout = Layout(torch.arange(slots), slice(slots, slots + tokens), text_varies=text_varies)

    def prefill(self, forward: Forward) -> Prefix | None:
        """Return None: everything sees the target, so nothing can be computed ahead."""
        return None

    def states(self, x: Tensor) -> Tensor:
        """Return the target's states ``[B, N, C]`` and the source behind them, in the model's dtype."""
        return torch.cat([x.to(self.text.dtype), self.reference.expand(len(x), -1, -1)], dim=1)


def timestep(sigma: float, batch: int, like: Tensor) -> Tensor:
    """Return a noise level as diffusers' pipelines hand it over, ``[batch]``.

    It passes through the model's dtype exactly as there, so that a trained LoRA meets the inputs it was trained on.
    """
    return torch.full((batch,), sigma * 1000, dtype=torch.float32, device=like.device).to(like.dtype) / 1000
