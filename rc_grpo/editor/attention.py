"""The attention concentration recorder: watches chosen joint-attention layers while the model runs (Eq. 16-18).

It listens with hooks on the normalised queries and keys and repeats only the rotary embedding of the rows it needs, so
that the model's own computation is untouched -- its outputs are the same bits with and without a recorder -- and a
model without a recorder carries nothing of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rc_grpo.algorithm.attention_density import concentration, mass_in_mask


class AttentionRecorder:
    """Collects the attention concentration density of every recorded layer at every velocity call."""

    def __init__(self, layers: int, token_mask: Tensor, text_counted: Tensor) -> None:
        self._mask = token_mask
        self._text_counted = text_counted
        self._values: list[list[Tensor]] = [[] for _ in range(layers)]

    @property
    def density(self) -> Tensor:
        """The densities so far, ``[B, layers, T]`` float32, T velocity calls."""
        return torch.stack([torch.stack(steps, dim=-1) for steps in self._values], dim=1)

    def observe(self, layer: int, text_queries: Tensor, image_keys: Tensor) -> None:
        """Add one layer's density of one call.

        Args:
            layer: index among the recorded layers.
            text_queries: ``[B, L, H, D]``, after rotary embedding.
            image_keys: ``[B, N, H, D]`` of the *target* tokens, after rotary embedding.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("attention is recorded without gradients only: under checkpointing it would count twice")
        batch = text_queries.shape[0]
        mask = self._mask.to(text_queries.device).expand(batch, -1)
        counted = self._text_counted.to(text_queries.device).expand(batch, -1)
        mass = mass_in_mask(text_queries.transpose(1, 2), image_keys.transpose(1, 2), mask)
        self._values[layer].append(concentration(mass, mask, counted).float())


@contextmanager
def recording(
    transformer: FluxTransformer2DModel, layers: tuple[int, ...], token_mask: Tensor, text_counted: Tensor
) -> Iterator[AttentionRecorder]:
    """Record ``layers`` (counted over double, then single blocks) of a FLUX transformer inside the context.

    Args:
        transformer: the model.
        layers: joint-attention layers; FLUX.1 has 19 + 38.
        token_mask: ``[N]`` bool, the edit region.
        text_counted: ``[L]`` bool over all text slots, True at the text tokens that count.

    Raises:
        ValueError: a layer index does not exist.
    """
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    for layer in layers:
        if not 0 <= layer < len(blocks):
            raise ValueError(f"rollout.acd.layers names layer {layer}; this model has layers 0..{len(blocks) - 1}")
    recorder = AttentionRecorder(len(layers), token_mask, text_counted)
    text = slice(0, len(text_counted))
    target = slice(text.stop, text.stop + len(token_mask))
    handles: list[RemovableHandle] = []
    try:
        for index, layer in enumerate(layers):
            handles += _listen(blocks[layer].attn, recorder, index, text, target)
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def _listen(
    attention: FluxAttention, recorder: AttentionRecorder, layer: int, text: slice, target: slice
) -> list[RemovableHandle]:
    """Hook one FLUX attention; ``text`` and ``target`` are ranges of the joint sequence [text | target | reference]."""
    is_double = attention.added_kv_proj_dim is not None
    if is_double:  # text and image run in streams of their own, each starting at 0
        query_norm, query_rows, key_rows = attention.norm_added_q, text, slice(0, target.stop - target.start)
    else:
        query_norm, query_rows, key_rows = attention.norm_q, text, target
    seen: dict[str, Any] = {}

    def keep_rotary(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        seen["rotary"] = kwargs["image_rotary_emb"]

    def keep_queries(_module: nn.Module, _args: Any, output: Tensor) -> None:
        seen["queries"] = output[:, query_rows]

    def keep_keys(_module: nn.Module, _args: Any, output: Tensor) -> None:
        seen["keys"] = output[:, key_rows]

    def observe(_module: nn.Module, _args: Any, _output: Any) -> None:
        cosine, sine = seen["rotary"]
        recorder.observe(
            layer,
            apply_rotary_emb(seen["queries"], (cosine[text], sine[text]), sequence_dim=1),
            apply_rotary_emb(seen["keys"], (cosine[target], sine[target]), sequence_dim=1),
        )
        seen.clear()

    return [
        attention.register_forward_pre_hook(keep_rotary, with_kwargs=True),
        query_norm.register_forward_hook(keep_queries),
        attention.norm_k.register_forward_hook(keep_keys),
        attention.register_forward_hook(observe),
    ]
