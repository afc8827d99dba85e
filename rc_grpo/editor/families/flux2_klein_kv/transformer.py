"""FLUX.2 klein's KV variant: sources see themselves alone, at no noise level, so that all passes share what they are.

Text and target see everything and follow the noise level: of them nothing is shared.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2KVCache, Flux2KVLayerCache
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux2_klein.architecture import read
from rc_grpo.editor.families.flux2_klein.attention import FusedAttention
from rc_grpo.editor.families.flux2_klein.transformer import KleinBody, KleinBound
from rc_grpo.editor.family import Forward, Text
from rc_grpo.editor.prefix import Prefix
from rc_grpo.editor.recording import Layout, Probe
from rc_grpo.editor.stock.attention import JointAttention, ProbedAttention
from rc_grpo.editor.stock.body import timestep
from rc_grpo.messages import Conditions


@dataclass(frozen=True)
class Told:
    """What the transformer tells a block.

    Attributes:
        cache: where sources are found behind a prefix, or are kept.
        text: tokens of the text among the queries.
        sources: of the sources among them.
        keep: what sources are, in the cache.
    """

    cache: Flux2KVLayerCache | None
    text: int
    sources: int
    keep: bool


class _SourcesApart(ProbedAttention):
    """What both kinds of blocks do. Joint order ``[text | source | target]``; behind a prefix ``[text | target]``."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Any = None) -> Tensor:
        """Probe and attend, as diffusers' own processors do, whose bits these are.

        Args:
            query: of all tokens ``[B, S, H, D]``.
            key: likewise.
            value: likewise.
            mask: a `Told`, which says who sees whom.
        """
        told: Told = mask
        if not told.sources:
            assert told.cache is not None
            keys, values = (kept.expand(len(query), -1, -1, -1) for kept in told.cache.get())
            if self.probe is not None:
                self.look(query, torch.cat([keys, key], dim=1))
            both = ((key, keys), (value, values))
            key, value = (torch.cat([own[:, : told.text], kept, own[:, told.text :]], dim=1) for own, kept in both)
            return self.mix(query, key, value)
        source = slice(told.text, told.text + told.sources)
        if told.keep and told.cache is not None:
            told.cache.store(key[:, source], value[:, source])
        self.look(query, key)
        rest = self.mix(torch.cat([query[:, : source.start], query[:, source.stop :]], dim=1), key, value)
        apart = self.mix(query[:, source], key[:, source], value[:, source])
        return torch.cat([rest[:, : source.start], apart, rest[:, source.start :]], dim=1)


class JointApart(_SourcesApart, JointAttention):
    """Attention processor of a double-stream block."""

    def __call__(  # type: ignore[override]
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        kv_cache: Flux2KVLayerCache | None = None,
        kv_cache_mode: str | None = None,
        num_ref_tokens: int = 0,
        keep: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; text comes apart from images and goes back apart."""
        sources = num_ref_tokens if kv_cache_mode == "extract" else 0
        told: Any = Told(kv_cache, encoder_hidden_states.shape[1], sources, keep)
        return super().__call__(attn, hidden_states, encoder_hidden_states, told, image_rotary_emb)


class FusedApart(_SourcesApart, FusedAttention):
    """Attention processor of a single-stream block."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
        kv_cache: Flux2KVLayerCache | None = None,
        kv_cache_mode: str | None = None,
        num_txt_tokens: int = 0,
        num_ref_tokens: int = 0,
        keep: bool = False,
    ) -> Tensor:
        """Attend to, and run the MLP on, the stream ``[B, S, width]``."""
        sources = num_ref_tokens if kv_cache_mode == "extract" else 0
        told: Any = Told(kv_cache, num_txt_tokens, sources, keep)
        return super().__call__(attn, hidden_states, told, image_rotary_emb)


class KVBody(KleinBody):
    """The transformer of a KV model; see `rc_grpo.editor.family.Body`."""

    def bind(self, conditions: Conditions, text: Text, guidance: float) -> "KVBound":
        """Put a task on the device with one of its texts."""
        return KVBound(self, conditions, text)

    def processor(self, block: Any, probe: Probe | None) -> JointApart | FusedApart:
        """Return an attention processor for a double- or a single-stream block."""
        kind = FusedApart if hasattr(block.attn, "to_qkv_mlp_proj") else JointApart
        return kind(probe, fused=self.fused)


def body(transformer: Flux2Transformer2DModel, editor: EditorConfig) -> KVBody:
    """Wrap a transformer."""
    return KVBody(transformer, read(editor))


class KVBound(KleinBound):
    """The text of one task on the device."""

    def __init__(self, body: KVBody, conditions: Conditions, text: Text) -> None:
        super().__init__(body, conditions, text)
        slots, sources, tokens = len(self.text), len(self.reference), body.latent_shape(conditions)[0]
        places, target = torch.arange(slots), slice(slots + sources, slots + sources + tokens)
        self.layout = Layout(places, target)
        self._behind = Layout(places + sources, target, queries_from=sources)
        self._target_ids, self._source_ids = self._ids[:tokens], self._ids[tokens:]
        self._depths = len(body.transformer.transformer_blocks), len(body.transformer.single_transformer_blocks)

    def prefill(self, forward: Forward) -> Prefix:
        """Compute the sources' keys and values."""
        # The transformer wants a target and a text, which no source sees: a token each.
        _, cache = self._passed(forward, self.reference.new_zeros(1, 1, self.reference.shape[1]), 0.0, slots=1)
        layers = [*cache.double_block_caches, *cache.single_block_caches]
        keys, values = zip(*(layer.get() for layer in layers), strict=True)
        return Prefix(keys, values, self._behind)

    def __call__(self, forward: Forward, x: Tensor, sigma: float, prefix: Prefix | None) -> Tensor:
        """Return the velocity at states ``[B, N, C]``."""
        if prefix is None:
            return self._passed(forward, x.to(self.text.dtype), sigma)[0].to(x.dtype)
        cache = Flux2KVCache(*self._depths)
        layers = [*cache.double_block_caches, *cache.single_block_caches]
        for layer, keys, values in zip(layers, prefix.keys, prefix.values, strict=True):
            layer.store(keys, values)
        output: Tensor = forward(
            hidden_states=x.to(self.text.dtype),
            timestep=timestep(sigma, len(x), self.text),
            guidance=None,
            encoder_hidden_states=self.text.expand(len(x), -1, -1),
            txt_ids=self._text_ids,
            img_ids=self._target_ids,
            return_dict=False,
            kv_cache=cache,
            kv_cache_mode="cached",
        )[0]
        return output.to(x.dtype)

    def _passed(
        self, forward: Forward, x: Tensor, sigma: float, slots: int | None = None
    ) -> tuple[Tensor, Flux2KVCache]:
        """Return the velocity of states ``[B, n, C]`` of a target, or of its first tokens, and what sources are."""
        output: tuple[Tensor, Flux2KVCache] = forward(
            hidden_states=torch.cat([self.reference.expand(len(x), -1, -1), x], dim=1),
            timestep=timestep(sigma, len(x), self.text),
            guidance=None,
            encoder_hidden_states=self.text[:slots].expand(len(x), -1, -1),
            txt_ids=self._text_ids[:slots],
            img_ids=torch.cat([self._source_ids, self._target_ids[: x.shape[1]]]),
            return_dict=False,
            joint_attention_kwargs={"keep": slots is not None},
            kv_cache_mode="extract",
            num_ref_tokens=len(self.reference),
        )
        return output
