"""The attention of Qwen-Image-2.1's blocks: one stream, causal from part to part.

Text is causal by the token, an image sees itself and all ahead of it, and the target comes last. So it goes part by
part, as diffusers' own processor does it, whose bits these are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rc_grpo.editor.fp8 import QuantisedRows
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


class Layers:
    """What the transformer hands its blocks in the place of diffusers' cache: where the parts of the sequence lie.

    Args:
        parts: of the sequence.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def get_layer(self, index: int) -> Parts:
        """Return what a block gets."""
        return self._parts


class BlockCausalAttention(TurnedAttention):
    """Attention processor; joint order ``[text | source | text | target]``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor | QuantisedRows,
        attention_mask: Any = None,
        rotary_emb: Tensor | None = None,
        layer_cache: Parts | None = None,
        kv_cache_mode: str | None = None,
        cache_write_slice: slice | None = None,
        segments: Sequence[tuple[int, int, bool]] | None = None,
        key_valid: Tensor | None = None,
    ) -> Tensor:
        """Attend over the stream ``[B, S, width]``.

        Raises:
            ValueError: the parts are not told, or a text is padded, which would move the target's positions.
        """
        if layer_cache is None or rotary_emb is None or key_valid is not None:
            raise ValueError("a text is bound at its true length, with the parts of its sequence: nothing is masked")
        query, key, value = heads(attn.inner_dim // attn.heads, hidden_states, (attn.to_q, attn.to_k, attn.to_v))
        rotary = self.rotary(rotary_emb)
        query = self.norm_and_rotate((query,), (attn.norm_q,), rotary)
        key = self.norm_and_rotate((key,), (attn.norm_k,), rotary)
        self.look(query, key)
        mixed = [
            self.mix(query[:, start:stop], key[:, :stop], value[:, :stop], causal(start, stop, query) if text else None)
            for start, stop, text in layer_cache.of(query.shape[1])
        ]
        return attn.to_out[0](torch.cat(mixed, dim=1))  # type: ignore[no-any-return]


def causal(start: int, stop: int, like: Tensor) -> Tensor:
    """Return which keys ``[1, 1, stop - start, stop]`` bool the tokens from ``start`` to ``stop`` see: none behind."""
    return torch.ones(stop - start, stop, dtype=torch.bool, device=like.device).tril(start)[None, None]
