"""Attention concentration (Eq. 16-18) recorded while an editor works, and a gradient guard for attention kernels.

Every block's attention processor computes the concentration where it is given a `Probe`, from the queries and keys that
the layer has anyway, as an output of the compiled block: nothing leaves the graph, and the host waits for nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rc_grpo.algorithm.attention_density import concentration_on_text, mass_in_mask, token_weights

Direction = Literal["from_text", "to_text"]
"""In which attention concentrates: from text queries on target keys (Eq. 16), or from target queries on text keys."""


@dataclass(frozen=True)
class Layout:
    """Where a task's tokens lie among the queries and keys of a joint attention.

    Attributes:
        text: ``[L]`` int64, the key at which each slot of `rc_grpo.messages.Conditions.text_valid` lies.
        target: the keys of the image that is made, N of them.
        directions: that there are; a model whose text never sees the target has ``to_text`` alone.
        queries_from: the key of the first query, above 0 behind a cached prefix.
    """

    text: Tensor
    target: slice
    directions: frozenset[Direction] = frozenset({"from_text", "to_text"})
    queries_from: int = 0


class Probe(ABC):
    """Measures one layer's attention concentration in one direction."""

    @staticmethod
    def of(mask: Tensor, weights: Tensor, layout: Layout, direction: Direction = "from_text") -> "Probe":
        """Make a probe for a layout.

        Args:
            mask: ``[1, N]`` bool, the edit region among the target's tokens.
            weights: ``[L]`` float32 of the text tokens, see `rc_grpo.algorithm.attention_density.token_weights`.
            layout: of the attention.
            direction: one of `Layout.directions`.

        Raises:
            ValueError: the model has no such attention, or mask and weights are of other lengths.
        """
        if direction not in layout.directions:
            raise ValueError(
                "this editor's text never sees the image that is made, so that its attention concentrates nowhere; "
                "set rollout.acd.direction=to_text"
            )
        tokens = layout.target.stop - layout.target.start
        if (mask.shape[-1], len(weights)) != (tokens, len(layout.text)):
            raise ValueError(
                f"a mask of {mask.shape[-1]} tokens and {len(weights)} text slots do not fit an attention over "
                f"{tokens} target tokens and {len(layout.text)} text slots"
            )
        target = layout.target.start, layout.target.stop
        if direction == "to_text":
            queries = target[0] - layout.queries_from, target[1] - layout.queries_from
            return ToText(mask, layout.text.to(mask.device)[weights > 0], queries)
        text = layout.text.cpu() - layout.queries_from
        first = int(text[0])
        in_a_row = torch.equal(text, torch.arange(first, first + len(text)))
        return FromText(mask, weights, (first, first + len(text)) if in_a_row else text.to(mask.device), target)

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the concentration ``[B]`` float32 from the joint queries and keys ``[B, S, H, D]``, rotated."""
        if torch.is_grad_enabled():
            raise RuntimeError("attention is recorded without gradients only: under checkpointing it would count twice")
        return self.measure(query, key)

    @abstractmethod
    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """See `__call__`."""


@dataclass(frozen=True)
class FromText(Probe):
    """From text queries to target keys (Eq. 16).

    Attributes:
        mask: ``[1, N]`` bool.
        weights: ``[L]`` float32.
        text: the text's first query and the one behind its last, or where its L queries lie if not in a row.
        target: the target's first key and the one behind its last.
    """

    mask: Tensor
    weights: Tensor
    text: tuple[int, int] | Tensor
    target: tuple[int, int]

    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """See `Probe`."""
        text = query[:, self.text[0] : self.text[1]] if isinstance(self.text, tuple) else query[:, self.text]
        image = key[:, self.target[0] : self.target[1]]
        mass = mass_in_mask(text.transpose(1, 2), image.transpose(1, 2), self.mask.expand(len(query), -1))
        return (mass.mean(dim=1).float() * self.weights).sum(dim=-1)


@dataclass(frozen=True)
class ToText(Probe):
    """From target queries, over all keys, to those of the text that counts.

    Attributes:
        mask: ``[1, N]`` bool.
        text: the keys of the text tokens that count.
        target: the target's first query and the one behind its last.
    """

    mask: Tensor
    text: Tensor
    target: tuple[int, int]

    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """See `Probe`."""
        is_text = torch.zeros(key.shape[1], device=key.device).index_fill(0, self.text, 1.0)
        queries = query[:, self.target[0] : self.target[1]].transpose(1, 2)
        mass = mass_in_mask(queries, key.transpose(1, 2), is_text.expand(len(query), -1))
        return concentration_on_text(mass.float(), self.mask.expand(len(query), -1))


Processor = Callable[[Any, Probe | None], Any]
"""From a block and a probe to its attention processor, which leaves what the probe found in ``concentration`` [B]."""


class AttentionRecorder:
    """Collects the concentration of every recorded layer, once a solver's step.

    A step begins with an evaluation at its noise level. The step before may have looked ahead to that level (Heun), at
    a proposal that is then left: of evaluations at one level, one after the other, the last counts.

    Args:
        blocks: the recorded ones, in order.
        processor: makes their attention processors.
        token_mask: ``[N]`` bool, the edit region.
        weights: ``[L]`` float32 of the text slots.
        direction: in which concentration is measured.
    """

    def __init__(
        self, blocks: Sequence[Any], processor: Processor, token_mask: Tensor, weights: Tensor, direction: Direction
    ) -> None:
        self._blocks = blocks
        self._processor = processor
        self._mask = token_mask[None]
        self._weights = weights
        self._direction = direction
        self._layout: Layout | None = None
        self._expected: Layout | None = None
        self._resting = [block.attn.processor for block in blocks]
        self._probing: list[Any] = []
        self._steps: list[tuple[float, Tensor]] = []

    @property
    def density(self) -> Tensor:
        """The densities so far, ``[B, layers, T]`` float32, T steps."""
        return torch.stack([density for _, density in self._steps], dim=-1)

    def expect(self, layout: Layout | None) -> None:
        """Have the layers probe attentions of this layout from now on; None has them probe nothing."""
        if layout is self._expected:
            return
        if layout is not None and layout is not self._layout:
            probe = Probe.of(self._mask, self._weights, layout, self._direction)
            self._probing = [self._processor(block, probe) for block in self._blocks]
            self._layout = layout
        for block, processor in zip(self._blocks, self._resting if layout is None else self._probing, strict=True):
            block.attn.set_processor(processor)
        self._expected = layout

    def collect(self, sigma: float) -> None:
        """Keep what the layers measured in the pass that just ended, at a noise level."""
        if self._steps and self._steps[-1][0] == sigma:
            del self._steps[-1]
        self._steps.append((sigma, torch.stack([_taken(block.attn.processor) for block in self._blocks], dim=1)))


def _taken(processor: Any) -> Tensor:
    if getattr(processor, "concentration", None) is None:
        raise RuntimeError("a recorded layer did not run: its attention processor was replaced inside the context")
    value: Tensor = processor.concentration
    processor.concentration = None
    return value


@contextmanager
def recording(
    blocks: Sequence[Any],
    processor: Processor,
    layers: tuple[int, ...],
    token_mask: Tensor,
    text_counted: Tensor,
    direction: Direction = "from_text",
) -> Iterator[AttentionRecorder]:
    """Record layers of an editor inside the context.

    Args:
        blocks: of the editor, in the order in which layers are counted.
        processor: makes their attention processors.
        layers: joint-attention layers, one a block.
        token_mask: ``[N]`` bool, the edit region, on the editor's device.
        text_counted: ``[L]`` bool over all text slots, True at the text tokens that count.
        direction: in which concentration is measured.

    Raises:
        ValueError: a layer index does not exist, or a mask is empty.
    """
    for layer in layers:
        if not 0 <= layer < len(blocks):
            last = len(blocks) - 1
            raise ValueError(f"rollout.acd.layers names layer {layer}; this model has layers 0..{last}")
    weights = token_weights(token_mask[None].cpu(), text_counted[None].cpu())[0]
    recorded = [blocks[layer] for layer in layers]
    before = [block.attn.processor for block in recorded]
    on_device = weights.to(token_mask.device, torch.float32)
    recorder = AttentionRecorder(recorded, processor, token_mask, on_device, direction)
    try:
        yield recorder
    finally:
        for block, own in zip(recorded, before, strict=True):
            block.attn.set_processor(own)


class _DenseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous()


def dense_gradient(x: Tensor) -> Tensor:
    """Return ``x``; its gradient will lie densely in memory, in the order of its axes.

    cuDNN's backward pass (PyTorch 2.11, cuDNN 9.19) reads the gradient of attention's output as if it did. A block that
    concatenates that output with its MLP's hands it a slice of a wider one: the result is noise, NaN or an illegal
    memory access, without a word.
    """
    return _DenseGradient.apply(x)  # type: ignore[no-any-return,no-untyped-call]
