"""The judge's forward pass in batches of equal rows: Hugging Face's weights and results, none of its loops.

Its own forward runs the vision tower image by image in Python, because images may differ in size. Here all are 128x128
and all rows of a question have one layout, so a thousand images are one call.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rc_grpo.pocket.world import IMAGE_SIZE
from reward_service.pocket_judge.architecture import (
    FRAMES,
    HEAD_WIDTH,
    HEADS,
    IMAGE_TOKENS,
    KEY_VALUE_HEADS,
    MERGE,
    PATCH,
    ROPE_BASE,
    ROPE_SECTIONS,
    VISION_HEADS,
    VISION_ROPE_BASE,
    VISION_WIDTH,
)
from reward_service.pocket_judge.sequences import Layout

_GRID = IMAGE_SIZE // PATCH
_BLOCKS = _GRID // MERGE


class Network(nn.Module):
    """A `Qwen2_5_VLForConditionalGeneration` for images of 128x128 pixels.

    Args:
        model: whose modules it runs; they are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def look(self, images: Tensor) -> Tensor:
        """Return the tokens ``[B, 64, 256]`` of images ``[B, 3, 128, 128]``, float32 in 0..1."""
        visual = self.model.model.visual
        # Both frames of a still image are the same: one product with the sum of their weights.
        weight = visual.patch_embed.proj.weight.sum(dim=2).flatten(1)
        x = functional.linear(patches(images), weight)
        rotation = vision_rotation(images.device)
        for block in visual.blocks:
            query, key, value = block.attn.qkv(_normed(block.norm1, x)).chunk(3, dim=-1)
            heads = [_heads(part, VISION_HEADS) for part in (query, key, value)]
            mixed = functional.scaled_dot_product_attention(
                _rotated(heads[0], rotation), _rotated(heads[1], rotation), heads[2]
            )
            x = x + block.attn.proj(_joined(mixed))
            x = x + block.mlp(_normed(block.norm2, x))
        merged = _normed(visual.merger.ln_q, x).reshape(len(images), IMAGE_TOKENS, MERGE**2 * VISION_WIDTH)
        tokens: Tensor = visual.merger.mlp(merged)
        return tokens

    def read(self, ids: Tensor, images: Tensor, layout: Layout) -> Tensor:
        """Return the last hidden states ``[B, L, 256]``.

        Args:
            ids: ``[B, L]`` int64.
            images: what stands at the placeholders, ``[B, n, 64, 256]``, in order.
            layout: of these rows.
        """
        language = self.model.model.language_model
        embedded = language.embed_tokens(ids)
        # The precision of the residual stream is the images' from here on: a server in bfloat16 has no better one.
        x = embedded.to(images.dtype).index_copy(1, layout.shown, images.flatten(1, 2))
        rotation = text_rotation(layout.places)
        groups = HEADS // KEY_VALUE_HEADS
        for layer in language.layers:
            y = _normed(layer.input_layernorm, x)
            attention = layer.self_attn
            key = _rotated(_heads(attention.k_proj(y), KEY_VALUE_HEADS), rotation)
            value = _heads(attention.v_proj(y), KEY_VALUE_HEADS)
            mixed = functional.scaled_dot_product_attention(
                _rotated(_heads(attention.q_proj(y), HEADS), rotation),
                # Repeated here: not every kernel that takes a mask shares keys between heads by itself.
                key.repeat_interleave(groups, dim=1),
                value.repeat_interleave(groups, dim=1),
                attn_mask=layout.mask,
            )
            x = x + attention.o_proj(_joined(mixed))
            x = x + layer.mlp(_normed(layer.post_attention_layernorm, x))
        return _normed(language.norm, x)

    def speak(self, hidden: Tensor) -> Tensor:
        """Return the logits ``[..., V]`` of hidden states ``[..., 256]``."""
        logits: Tensor = self.model.lm_head(hidden)
        return logits


def patches(images: Tensor) -> Tensor:
    """Cut images ``[B, 3, 128, 128]`` in 0..1 into ``[B, 256, 192]`` in -1..1, each token's four patches together."""
    cut = images.reshape(-1, 3, _BLOCKS, MERGE, PATCH, _BLOCKS, MERGE, PATCH)
    ordered = cut.permute(0, 2, 5, 3, 6, 1, 4, 7)
    return 2 * ordered.reshape(-1, _GRID**2, 3 * PATCH**2) - 1


def pixel_values(images: Tensor) -> Tensor:
    """Return images ``[B, 3, 128, 128]`` as Hugging Face's processor does: ``[B * 256, 3 * 2 * 64]``."""
    cut = patches(images).reshape(-1, 3, 1, PATCH**2)
    return cut.expand(-1, -1, FRAMES, -1).flatten(1)


def vision_rotation(device: torch.device) -> Tensor:
    """Return cosines and sines ``[2, 256, 32]`` of the patches' rows and columns, in the order of `patches`."""
    index = torch.arange(_GRID, device=device).float()
    grid = torch.stack(torch.meshgrid(index, index, indexing="ij"), dim=-1)
    places = grid.reshape(_BLOCKS, MERGE, _BLOCKS, MERGE, 2).transpose(1, 2).reshape(_GRID**2, 2)
    half = VISION_WIDTH // VISION_HEADS // 2
    frequencies = VISION_ROPE_BASE ** -(torch.arange(0, half, 2, device=device) / half)
    return _cosines_and_sines((places[:, :, None] * frequencies).flatten(1))


def text_rotation(places: Tensor) -> Tensor:
    """Return cosines and sines ``[2, L, 64]`` of positions ``[3, L]``: some frequencies for each of the three."""
    exponents = torch.arange(0, HEAD_WIDTH, 2, device=places.device) / HEAD_WIDTH
    angles = places[:, :, None] * ROPE_BASE**-exponents
    sections = torch.split(angles, list(ROPE_SECTIONS), dim=-1)
    return _cosines_and_sines(torch.cat([section[axis] for axis, section in enumerate(sections)], dim=-1))


def _cosines_and_sines(angles: Tensor) -> Tensor:
    twice = torch.cat([angles, angles], dim=-1)
    return torch.stack([twice.cos(), twice.sin()])


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    one, other = x.chunk(2, dim=-1)
    cosines, sines = rotation.to(x.dtype).unbind()
    return x * cosines + torch.cat([-other, one], dim=-1) * sines


def _normed(norm: Any, x: Tensor) -> Tensor:
    # Squares in float32 under any autocast, as in the original.
    normed: Tensor = functional.rms_norm(x.float(), x.shape[-1:], norm.weight, norm.variance_epsilon)
    return normed.to(x.dtype)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.reshape(*x.shape[:-1], count, -1).transpose(1, 2)


def _joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)
