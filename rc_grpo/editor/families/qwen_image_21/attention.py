"""The attention of Qwen-Image-2.1's blocks: one stream, causal from part to part.

Text is causal by the token, an image sees itself and all ahead of it, and the target comes last. So it goes part by
part, as diffusers' own processor does it, whose bits these are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rc_grpo.editor.fast.fp8 import QuantisedRows
from rc_grpo.editor.stock.attention import heads
from rc_grpo.editor.stock.complex_positions import TurnedAttention


@dataclass(frozen=True)
class Parts:
    """Where the parts of a sequence lie, in numbers that the length of the text behind the sources does not change.

    Compiled blocks have them as constants; diffusers' own segments would have a graph for every length.

    Attributes:
        sources: the first token of each source, and the one behind its last.
        target: tokens of the target, which comes last.
    """

    sources: tuple[tuple[int, int], ...]
    target: int

    def of(self, total: int) -> Iterator[tuple[int, int, bool]]:
        """Yield the first token of each part of a sequence, the one behind its last, and whether it is text."""
        at = 0
        for start, stop in self.sources:
            yield at, start, True
            yield start, stop, False
            at = stop
        yield at, total - self.target, True
        yield total - self.target, total, False


@dataclass
class Kept:
    """What a block keeps of the tokens in front of the target.

    Attributes:
        parts: of the sequence.
        keys: ``[1, P, H, D]``, rotated, once the block ran.
        values: the same of its values.
    """

    parts: Parts
    keys: Tensor | None = None
    values: Tensor | None = None

    def keep(self, keys: Tensor, values: Tensor) -> None:
        """Keep what of the whole sequence's is in front of the target."""
        self.keys, self.values = keys[:, : -self.parts.target], values[:, : -self.parts.target]

    def taken(self) -> tuple[Tensor, Tensor]:
        """Return keys and values of a block that ran."""
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values


@dataclass(frozen=True)
class Ahead:
    """What a block finds of the tokens in front of the target, whose queries alone come: ``[1, P, H, D]`` each."""

    keys: Tensor
    values: Tensor


Given = Parts | Kept | Ahead


@dataclass(frozen=True)
class Layers:
    """What the transformer hands its blocks in the place of diffusers' cache.

    Attributes:
        given: to each block.
    """

    given: Sequence[Given]

    def get_layer(self, index: int) -> Given:
        """Return what a block gets."""
        return self.given[index]


class BlockCausalAttention(TurnedAttention):
    """Attention processor; joint order ``[text | source | text | target]``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor | QuantisedRows,
        attention_mask: Any = None,
        rotary_emb: Tensor | None = None,
        layer_cache: Given | None = None,
        kv_cache_mode: str | None = None,
        cache_write_slice: slice | None = None,
        segments: Sequence[tuple[int, int, bool]] | None = None,
        key_valid: Tensor | None = None,
    ) -> Tensor:
        """Attend over the stream ``[B, S, width]``, or over the target's part of it behind what is ahead.

        Raises:
            ValueError: the parts are not told, or a text is padded, which would move the target's positions.
        """
        if layer_cache is None or rotary_emb is None or key_valid is not None:
            raise ValueError("a text is bound at its true length, with the parts of its sequence: nothing is masked")
        query, key, value = heads(attn.inner_dim // attn.heads, hidden_states, (attn.to_q, attn.to_k, attn.to_v))
        rotary = self.rotary(rotary_emb)
        query = self.norm_and_rotate((query,), (attn.norm_q,), rotary)
        key = self.norm_and_rotate((key,), (attn.norm_k,), rotary)
        if isinstance(layer_cache, Ahead):
            key, value = (
                torch.cat([ahead.expand(len(own), -1, -1, -1), own], dim=1)
                for ahead, own in ((layer_cache.keys, key), (layer_cache.values, value))
            )
            self.look(query, key)
            return attn.to_out[0](self.mix(query, key, value))  # type: ignore[no-any-return]
        parts = layer_cache.parts if isinstance(layer_cache, Kept) else layer_cache
        if isinstance(layer_cache, Kept):
            layer_cache.keep(key, value)
        self.look(query, key)
        mixed = [
            self.mix(query[:, start:stop], key[:, :stop], value[:, :stop], causal(start, stop, query) if text else None)
            for start, stop, text in parts.of(query.shape[1])
        ]
        return attn.to_out[0](torch.cat(mixed, dim=1))  # type: ignore[no-any-return]


def causal(start: int, stop: int, like: Tensor) -> Tensor | None:
    """Return which keys ``[1, 1, stop - start, stop]`` bool the tokens from ``start`` to ``stop`` see: none behind.

    None where that is all of them: of a single token.
    """
    if stop - start == 1:
        return None
    return torch.ones(stop - start, stop, dtype=torch.bool, device=like.device).tril(start)[None, None]
