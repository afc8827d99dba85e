"""Qwen-Image-2.1's transformer as a body: how a task is bound to it, its velocity, its schedule, its canary."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from diffusers import QwenImage21Transformer2DModel
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_21 import rollout_blocks
from rc_grpo.editor.families.qwen_image_21.architecture import SIDE, Qwen21Architecture, read
from rc_grpo.editor.families.qwen_image_21.attention import Ahead, BlockCausalAttention, Given, Kept, Layers, Parts
from rc_grpo.editor.family import Forward, Text
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Layout, Probe
from rc_grpo.editor.stock.arrays import to_tensor
from rc_grpo.editor.stock.body import TEXT_OF_CANARY, TOKENS_PER_SIDE_OF_CANARY, StockBody, timestep
from rc_grpo.editor.stock.schedule import levels_by_tokens
from rc_grpo.messages import Conditions

SLOT = SIDE**2
"""Tokens of an image that a slot of the text stands for."""


class Qwen21Body(StockBody):
    """The transformer of a Qwen-Image-2.1 model; see `rc_grpo.editor.family.Body`.

    Args:
        transformer: on its device and in its dtype.
        architecture: its sizes.
    """

    def __init__(self, transformer: QwenImage21Transformer2DModel, architecture: Qwen21Architecture) -> None:
        super().__init__(transformer, list(transformer.transformer_blocks), architecture, "cfg")
        self._scheduler, self._even = architecture.scheduler, architecture.sample_sigmas

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the stock scheduler's levels ``[T+1]``, stretched so that the last before 0 is its terminal one.

        Raises:
            ValueError: a single step, which cannot be both the first level and the terminal one, or another number
                than the model's pipeline has levels for.
        """
        if self._even is not None and len(self._even) != steps:
            raise ValueError(
                f"this model's pipeline samples by levels of its own: it takes {len(self._even)} steps, not {steps}"
            )
        return levels_by_tokens(self._scheduler, steps, self.latent_shape(conditions)[0], self._even)

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> "Qwen21Bound":
        """Put a task on the device with one of its texts."""
        return Qwen21Bound(self, conditions, text)

    def processor(self, block: Any, probe: Probe | None) -> BlockCausalAttention:
        """Return an attention processor."""
        return BlockCausalAttention(probe, fused=self.fused)

    def varying(self, inputs: Sequence[Any], named: Mapping[str, Any]) -> Sequence[tuple[Tensor, int]]:
        """Return the sequence's states, positions and times, or what is ahead: a text is bound at its true length."""
        if named:
            names = ("hidden_states", "rotary_emb", "target_token_mask", "layer_cache")
            states, positions, is_target, given = (named[name] for name in names)
        else:
            _, states, _, positions, _, is_target, given, *_ = inputs
        if isinstance(given, Ahead):
            return (given.keys, 1), (given.values, 1)
        return (states, 1), (positions, 0), (is_target, 0)

    def canary(self) -> Conditions:
        """Return fixed random conditions of a few tokens, their source in the middle of their text."""
        plain = super().canary()
        slots = 1 + np.arange(TOKENS_PER_SIDE_OF_CANARY**2 // SLOT)
        behind = np.ones(TEXT_OF_CANARY - slots[-1] - 1, dtype=np.bool_)
        return replace(plain, arrays=dict(plain.arrays) | {"slots": slots}, text_valid=behind)

    def canary_texts(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the canary's texts by name."""
        return dict.fromkeys(("prompt", "negative"), (TEXT_OF_CANARY, int(self.transformer.config.context_in_dim)))

    def arrange_blocks(self, *, in_fp8: bool) -> None:
        """Rearrange the blocks for rollouts; see `rollout_blocks`.

        Raises:
            ValueError: float8 is asked for where there is none.
        """
        rollout_blocks.arrange(self.transformer, in_fp8=in_fp8)


def body(transformer: QwenImage21Transformer2DModel, editor: EditorConfig) -> Qwen21Body:
    """Wrap a transformer."""
    return Qwen21Body(transformer, read(editor))


class Qwen21Bound:
    """One text of one task on the device, at its true length: joint order ``[text | source | text | target]``."""

    def __init__(self, body: Qwen21Body, conditions: Conditions, text: Text) -> None:
        dtype, device = body.transformer.dtype, body.transformer.device
        arrays = conditions.arrays
        self._text, self._sources = (to_tensor(arrays[name], dtype, device) for name in (text, "reference"))
        target = conditions.height, conditions.width
        self._shapes = [(1, *body.grid(*size)) for size in (*(conditions.sources or (target,)), target)]
        slots = torch.tensor(arrays["slots"])
        self._is_image = torch.zeros(len(self._text), dtype=torch.bool).index_fill(0, slots, True).to(device)
        # A slot becomes the tokens that it stands for.
        prefix, behind = len(self._text) + (SLOT - 1) * len(slots), len(self._text) - 1 - int(slots[-1])
        tokens = prod(self._shapes[-1])
        self._parts = Parts(_spans([prod(shape) for shape in self._shapes[:-1]], slots.tolist()), tokens)
        text_keys = torch.arange(prefix - behind, prefix)
        self.layout = Layout(text_keys, slice(prefix, prefix + tokens), body.architecture.directions, text_varies=True)
        self._behind = replace(self.layout, queries_from=prefix)
        self._depth = len(body.blocks)

    def prefill(self, forward: Forward) -> Prefix:
        """Compute the keys and values of text and sources."""
        # The transformer wants a target, which nothing ahead of it sees: the smallest there is.
        kept = [Kept(replace(self._parts, target=SLOT)) for _ in range(self._depth)]
        self._passed(forward, self._sources.new_zeros(1, SLOT, self._sources.shape[1]), (1, SIDE, SIDE), 0.0, kept)
        keys, values = zip(*(layer.taken() for layer in kept), strict=True)
        return Prefix(keys, values, self._behind)

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return the velocity at states ``[B, N, C]``."""
        if prefix is None:
            given: Sequence[Given] = [self._parts] * self._depth
        else:
            given = [Ahead(*layer) for layer in zip(prefix.keys, prefix.values, strict=True)]
        output = self._passed(forward, x, self._shapes[-1], sigma, given)
        return output[:, -x.shape[1] :].to(x.dtype)

    def _passed(
        self, forward: Forward, x: Tensor, shape: tuple[int, int, int], sigma: float, given: Sequence[Given]
    ) -> Tensor:
        """Return what the transformer makes of a target of states ``[B, n, C]`` and so many rows and columns."""
        batch, tokens = x.shape[:2]
        output: Tensor = forward(
            hidden_states=torch.cat([self._sources.expand(batch, -1, -1), x.to(self._sources.dtype)], dim=1),
            timestep=timestep(sigma, batch, self._text),
            encoder_hidden_states=self._text.expand(batch, -1, -1),
            img_shapes=[[*self._shapes[:-1], shape]] * batch,
            img_mask=torch.cat([self._is_image, self._is_image.new_ones(tokens // SLOT)])[None],
            kv_cache=Layers(given),
            kv_cache_mode="cached" if isinstance(given[0], Ahead) else "extract",
            return_dict=False,
        )[0]
        return output


def _spans(tokens: Sequence[int], slots: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return where sources of so many tokens begin and end, from the text's slots that stand for them in order."""
    spans, before = [], 0
    for count in tokens:
        start = slots[before // SLOT] + before - before // SLOT
        spans.append((start, start + count))
        before += count
    return tuple(spans)
