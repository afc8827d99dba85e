"""FLUX's joint attention with what reinforcement learning needs of it: recordings, and gradients that are right.

`JointAttention` takes the place of diffusers' attention processor in every block and computes the same bits. It adds

- the attention concentration (Eq. 16-18) where one is asked for, from the queries and keys that the layer has anyway,
  as an output of the compiled block: nothing leaves the graph, and the host waits for nothing;
- a dense gradient for the attention kernel. cuDNN's backward pass (PyTorch 2.11, cuDNN 9.19) reads the gradient of its
  output as if it lay densely in memory. A single block concatenates that output with its MLP's, so the gradient is a
  slice of a wider one: the result is noise, NaN or an illegal memory access, without a word.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor, nn

from rc_grpo.algorithm.attention_density import mass_in_mask, token_weights
from rc_grpo.editor import kernels
from rc_grpo.editor.fp8 import Fp8Linear, QuantisedRows, quantise


@dataclass(frozen=True)
class Probe:
    """Measures one layer's attention concentration.

    Attributes:
        mask: ``[1, N]`` bool, the edit region among the target's tokens.
        weights: ``[L]`` float32 of the text tokens, see `rc_grpo.algorithm.attention_density.token_weights`.
    """

    mask: Tensor
    weights: Tensor

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the concentration ``[B]`` float32 from the joint queries and keys ``[B, S, H, D]``, rotated."""
        if torch.is_grad_enabled():
            raise RuntimeError("attention is recorded without gradients only: under checkpointing it would count twice")
        text, image = len(self.weights), self.mask.shape[1]
        mass = mass_in_mask(
            query[:, :text].transpose(1, 2),
            key[:, text : text + image].transpose(1, 2),
            self.mask.expand(len(query), -1),
        )
        return (mass.mean(dim=1).float() * self.weights).sum(dim=-1)


class JointAttention:
    """Attention processor of FLUX's double and single blocks; joint order ``[text | target | reference]``."""

    _attention_backend = None
    _parallel_config = None

    def __init__(self, probe: Probe | None = None) -> None:
        self.probe = probe
        self.concentration: Tensor | None = None
        """What the probe found at the last call."""

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor | QuantisedRows,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attend; a double block's text comes apart from its image and goes back apart."""
        image = _heads(attn, hidden_states, (attn.to_q, attn.to_k, attn.to_v))
        if encoder_hidden_states is None:
            query, key = (
                _norm_and_rotate((x,), (norm,), image_rotary_emb)
                for x, norm in zip(image, (attn.norm_q, attn.norm_k), strict=False)
            )
            value = image[2]
        else:
            text = _heads(attn, encoder_hidden_states, (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj))
            norms = ((attn.norm_added_q, attn.norm_q), (attn.norm_added_k, attn.norm_k))
            query, key = (
                _norm_and_rotate(both, norm, image_rotary_emb) for *both, norm in zip(text, image, norms, strict=False)
            )
            value = torch.cat([text[2], image[2]], dim=1)
        if self.probe is not None:
            self.concentration = self.probe(query, key)
        mixed = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        mixed = dense_gradient(mixed.flatten(2, 3))
        if encoder_hidden_states is None:
            return mixed
        length = encoder_hidden_states.shape[1]
        return attn.to_out[0](mixed[:, length:].contiguous()), attn.to_add_out(mixed[:, :length].contiguous())


def _heads(attn: FluxAttention, x: Tensor | QuantisedRows, projections: tuple[nn.Module, ...]) -> list[Tensor]:
    """Project ``[B, S, width]`` to query, key and value ``[B, S, H, D]``."""
    if isinstance(x, Tensor) and isinstance(projections[0], Fp8Linear):
        x = quantise(x)
    return [project(x).unflatten(-1, (-1, attn.head_dim)) for project in projections]


def _norm_and_rotate(
    streams: Sequence[Tensor], norms: Sequence[nn.RMSNorm], rotary: tuple[Tensor, Tensor] | None
) -> Tensor:
    x = streams[0]
    if rotary is not None and x.is_cuda and x.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        eps = [norm.eps or torch.finfo(x.dtype).eps for norm in norms]
        return kernels.norm_and_rotate(list(streams), [norm.weight for norm in norms], eps, *rotary)  # type: ignore[no-any-return]
    normed = torch.cat([norm(stream) for norm, stream in zip(norms, streams, strict=True)], dim=1)
    return apply_rotary_emb(normed, rotary, sequence_dim=1)  # type: ignore[no-any-return]


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


def dense_gradient(x: Tensor) -> Tensor:
    """Return ``x``; its gradient will lie densely in memory, in the order of its axes."""
    return _DenseGradient.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def install(transformer: FluxTransformer2DModel) -> None:
    """Put `JointAttention` into every block."""
    for block in blocks(transformer):
        block.attn.set_processor(JointAttention())


class AttentionRecorder:
    """Collects the concentration of every recorded layer at every velocity call."""

    def __init__(self, processors: list[JointAttention]) -> None:
        self._processors = processors
        self._calls: list[Tensor] = []

    @property
    def density(self) -> Tensor:
        """The densities so far, ``[B, layers, T]`` float32, T velocity calls."""
        return torch.stack(self._calls, dim=-1)

    def collect(self, *_: object) -> None:
        """Keep what the layers measured in the call that just ended; a forward hook of the model."""
        self._calls.append(torch.stack([_taken(processor) for processor in self._processors], dim=1))


def _taken(processor: JointAttention) -> Tensor:
    if processor.concentration is None:
        raise RuntimeError("a recorded layer did not run: its attention processor was replaced inside the context")
    value, processor.concentration = processor.concentration, None
    return value


@contextmanager
def recording(
    transformer: FluxTransformer2DModel, layers: tuple[int, ...], token_mask: Tensor, text_counted: Tensor
) -> Iterator[AttentionRecorder]:
    """Record ``layers`` (counted over double, then single blocks) of a FLUX transformer inside the context.

    Args:
        transformer: the model, prepared by `install`.
        layers: joint-attention layers; FLUX.1 has 19 + 38.
        token_mask: ``[N]`` bool, the edit region.
        text_counted: ``[L]`` bool over all text slots, True at the text tokens that count.

    Raises:
        ValueError: a layer index does not exist, or a mask is empty.
    """
    attentions_of = [block.attn for block in blocks(transformer)]
    for layer in layers:
        if not 0 <= layer < len(attentions_of):
            last = len(attentions_of) - 1
            raise ValueError(f"rollout.acd.layers names layer {layer}; this model has layers 0..{last}")
    weights = token_weights(token_mask[None], text_counted[None])[0]
    probe = Probe(token_mask[None].to(transformer.device), weights.to(transformer.device, torch.float32))
    attentions = [attentions_of[layer] for layer in layers]
    before = [attention.processor for attention in attentions]
    recorder = AttentionRecorder([JointAttention(probe) for _ in layers])
    handle = transformer.register_forward_hook(recorder.collect)
    try:
        for attention, processor in zip(attentions, recorder._processors, strict=True):
            attention.set_processor(processor)
        yield recorder
    finally:
        handle.remove()
        for attention, processor in zip(attentions, before, strict=True):
            attention.set_processor(processor)


def blocks(transformer: FluxTransformer2DModel) -> list[Any]:
    """Return the blocks in the order in which joint-attention layers are counted: double, then single."""
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
