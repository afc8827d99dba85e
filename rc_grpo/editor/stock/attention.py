"""The joint attention of diffusers' double-stream blocks, with what reinforcement learning needs of it.

`JointAttention` takes the place of diffusers' attention processor in a block and computes the same bits. It adds the
attention concentration where one is asked for, and a dense gradient for the attention kernel (see
`rc_grpo.editor.recording.dense_gradient`): a single-stream block concatenates attention's output with its MLP's.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from rc_grpo.editor.fast import flash_attention, kernels
from rc_grpo.editor.fast.fp8 import Fp8Linear, QuantisedRows, quantise
from rc_grpo.editor.fast.fp8_attention import attention_in_float8
from rc_grpo.editor.recording import Probe, dense_gradient
from rc_grpo.editor.weights import together

Fused = bool | Literal["fp8"]


class ProbedAttention:
    """What attention processors share: where they attend, and what a probe finds in their queries and keys.

    Args:
        probe: measures queries and keys, if there is one.
        fused: norm and rotation of queries and keys are one kernel: in rearranged blocks, and in compiled ones on a GPU
            in any case. It rounds a few entries otherwise than diffusers' own, which other blocks follow to the bit.
            ``fp8``: attention, too, is in float8, where nothing is masked.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, probe: Probe | None = None, *, fused: Fused = False) -> None:
        self.probe = probe
        self._fused = bool(fused)
        self._in_fp8 = fused == "fp8"
        self._trains_by_flash = flash_attention.is_better()
        self.concentration: Tensor | None = None
        """What the probe found at the last call."""

    def norm_and_rotate(self, streams: Sequence[Tensor], norms: Sequence[nn.RMSNorm], rotary: Any) -> Tensor:
        """Return queries or keys ``[B, S, H, D]`` of all streams one after the other, normed and rotated."""
        compiled = torch.compiler.is_compiling() and streams[0].is_cuda
        if (self._fused or compiled) and rotary is not None:
            eps = [norm.eps or torch.finfo(streams[0].dtype).eps for norm in norms]
            return kernels.norm_and_rotate(list(streams), [norm.weight for norm in norms], eps, *rotary)  # type: ignore[no-any-return]
        normed = torch.cat([norm(stream) for norm, stream in zip(norms, streams, strict=True)], dim=1)
        return self.rotate(normed, rotary)

    def rotate(self, x: Tensor, rotary: Any) -> Tensor:
        """Turn queries or keys ``[B, S, H, D]`` by their positions, as diffusers' own processor does."""
        return apply_rotary_emb(x, rotary, sequence_dim=1)  # type: ignore[no-any-return]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Probe and attend: queries, keys and values ``[B, S, H, D]`` of all tokens to ``[B, S, H * D]``."""
        self.look(query, key)
        return self.mix(query, key, value, mask)

    def look(self, query: Tensor, key: Tensor) -> None:
        """Have the probe measure joint queries and keys ``[B, S, H, D]``, if there is one."""
        if self.probe is not None:
            self.concentration = self.probe(query, key)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend, by the backend that diffusers has set: queries ``[B, Q, H, D]`` to ``[B, Q, H * D]``."""
        if self._in_fp8 and mask is None:
            return attention_in_float8(query, key, value).flatten(2, 3)  # type: ignore[no-any-return]
        trains = torch.is_grad_enabled() and torch.compiler.is_compiling()
        if trains and self._trains_by_flash and mask is None and flash_attention.takes(query, key):
            return flash_attention.attention(query, key, value)[0].flatten(2, 3)  # type: ignore[no-any-return]
        mixed = dispatch_attention_fn(
            query, key, value, attn_mask=mask, backend=self._attention_backend, parallel_config=self._parallel_config
        )
        return dense_gradient(mixed.flatten(2, 3))


class JointAttention(ProbedAttention):
    """Attention processor of blocks with diffusers' names; joint order ``[text | target | reference]``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor | QuantisedRows,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; a double block's text comes apart from its image and goes back apart."""
        image = heads(attn.head_dim, hidden_states, (attn.to_q, attn.to_k, attn.to_v))
        if encoder_hidden_states is None:
            query, key = (
                self.norm_and_rotate((x,), (norm,), image_rotary_emb)
                for x, norm in zip(image, (attn.norm_q, attn.norm_k), strict=False)
            )
            value = image[2]
        else:
            text = heads(attn.head_dim, encoder_hidden_states, (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
            norms = ((attn.norm_added_q, attn.norm_q), (attn.norm_added_k, attn.norm_k))
            query, key = (
                self.norm_and_rotate(both, norm, image_rotary_emb)
                for *both, norm in zip(text, image, norms, strict=False)
            )
            value = torch.cat([text[2], image[2]], dim=1)
        mixed = self.attend(query, key, value, attention_mask)
        if encoder_hidden_states is None:
            return mixed
        return apart(attn, mixed, encoder_hidden_states.shape[1])


def apart(attn: Any, mixed: Tensor, text: int) -> tuple[Tensor, Tensor]:
    """Project a double-stream block's image and text, of which there are so many tokens in front, apart."""
    return attn.to_out[0](mixed[:, text:].contiguous()), attn.to_add_out(mixed[:, :text].contiguous())


def heads(head_dim: int, x: Tensor | QuantisedRows, projections: tuple[nn.Module, ...]) -> list[Tensor]:
    """Project ``[B, S, width]`` to query, key and value ``[B, S, H, D]``."""
    if isinstance(x, Tensor) and isinstance(projections[0], Fp8Linear):
        x = quantise(x)
    found: list[Any]
    if isinstance(x, Tensor) and x.is_cuda and torch.compiler.is_compiling() and together.adapted(projections):
        found = together.project(x, projections)
    else:
        # As diffusers and PEFT round them.
        found = [project(x) for project in projections]
    return [one.unflatten(-1, (-1, head_dim)) for one in found]
