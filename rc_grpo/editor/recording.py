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
from torch.nn import functional

from rc_grpo.algorithm.attention_density import concentration_on_text, mass_in_mask, token_weights

Direction = Literal["from_text", "to_text"]
"""In which attention concentrates: from text queries on target keys (Eq. 16), or from target queries on text keys."""

BOTH_DIRECTIONS: frozenset[Direction] = frozenset({"from_text", "to_text"})


@dataclass(frozen=True)
class Layout:
    """Where a task's tokens lie among the queries and keys of a joint attention.

    Attributes:
        text: ``[L]`` int64, the key at which each slot of `rc_grpo.messages.Conditions.text_valid` lies.
        target: the keys of the image that is made, N of them.
        directions: that there are; a model whose text never sees the target has ``to_text`` alone.
        queries_from: the key of the first query, above 0 behind a cached prefix.
        text_varies: L differs from task to task: compiled blocks have one graph for all.
    """

    text: Tensor
    target: slice
    directions: frozenset[Direction] = BOTH_DIRECTIONS
    queries_from: int = 0
    text_varies: bool = False


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
        if layout.text_varies:
            # A weak mark: where a text of another length wants another graph all the same, it gets one.
            torch._dynamo.maybe_mark_dynamic(weights, 0)
        return (ToText if direction == "to_text" else FromText)(mask, weights, Places.of(layout, mask.device))

    def __call__(self, query: Tensor, key: Tensor) -> Tensor:
        """Return the concentration ``[B]`` float32 from the joint queries and keys ``[B, S, H, D]``, rotated."""
        if torch.is_grad_enabled():
            raise RuntimeError("attention is recorded without gradients only: under checkpointing it would count twice")
        return self.measure(query, key)

    @abstractmethod
    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """See `__call__`."""


@dataclass(frozen=True)
class Places:
    """Where text and target lie, in numbers that a text's length does not change: compiled, they are constants.

    Attributes:
        first: the first slot's key.
        text: the keys of all slots, if they are not in a row.
        gap: from the last slot's key, or from 0 where the text is not in a row in front, to the target's first one.
        tokens: of the target.
        queries_from: the key of the first query.
        ahead: queries ahead of the target's, behind a cached prefix; None where queries lie as keys do.
    """

    first: int
    text: Tensor | None
    gap: int
    tokens: int
    queries_from: int
    ahead: int | None

    @staticmethod
    def of(layout: Layout, device: torch.device) -> "Places":
        """Read them from a layout."""
        text = layout.text.cpu()
        first = int(text[0])
        in_a_row = torch.equal(text, torch.arange(first, first + len(text)))
        leads = in_a_row and first + len(text) <= layout.target.start
        gap = layout.target.start - (first + len(text) if leads else 0)
        tokens = layout.target.stop - layout.target.start
        behind = layout.queries_from
        ahead = layout.target.start - behind if behind else None
        return Places(first, None if leads else layout.text.to(device), gap, tokens, behind, ahead)

    def of_text(self, x: Tensor, slots: int, *, queries: bool = False) -> Tensor:
        """Return the text's part of joint keys or queries ``[B, S, ...]``."""
        shift = self.queries_from if queries else 0
        if self.text is not None:
            return x[:, self.text - shift]
        return x[:, self.first - shift : self.first - shift + slots]

    def of_target(self, x: Tensor, slots: int, *, queries: bool = False) -> Tensor:
        """Return the target's part of joint keys or queries."""
        start = self.gap + (0 if self.text is not None else self.first + slots)
        if queries and self.ahead is not None:
            start = self.ahead
        return x[:, start : start + self.tokens]

    def spread(self, values: Tensor, keys: int) -> Tensor:
        """Return values ``[L]`` of the text's slots at their keys, 0 at all others, ``[S]``."""
        if self.text is not None:
            return values.new_zeros(keys).index_copy(0, self.text, values)
        return functional.pad(values, (self.first, keys - self.first - values.shape[0]))


@dataclass(frozen=True)
class FromText(Probe):
    """From text queries to target keys (Eq. 16).

    Attributes:
        mask: ``[1, N]`` bool.
        weights: ``[L]`` float32.
        places: of text and target.
    """

    mask: Tensor
    weights: Tensor
    places: Places

    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """See `Probe`."""
        slots = self.weights.shape[0]
        text = self.places.of_text(query, slots, queries=True)
        image = self.places.of_target(key, slots)
        mass = mass_in_mask(text.transpose(1, 2), image.transpose(1, 2), self.mask.expand(len(query), -1))
        return (mass.mean(dim=1).float() * self.weights).sum(dim=-1)


@dataclass(frozen=True)
class ToText(Probe):
    """From target queries, over all keys, to those of the text that counts.

    Attributes:
        mask: ``[1, N]`` bool.
        weights: ``[L]`` float32, above 0 where a slot counts.
        places: of text and target.
    """

    mask: Tensor
    weights: Tensor
    places: Places

    def measure(self, query: Tensor, key: Tensor) -> Tensor:
        """See `Probe`."""
        slots = self.weights.shape[0]
        is_text = self.places.spread((self.weights > 0).float(), key.shape[1])
        queries = self.places.of_target(query, slots, queries=True).transpose(1, 2)
        mass = mass_in_mask(queries, key.transpose(1, 2), is_text.expand(len(query), -1))
        return concentration_on_text(mass.float(), self.mask.expand(len(query), -1))


Processor = Callable[[Any, Probe | None], Any]
"""From a block and a probe to its attention processor, which leaves what the probe found in ``concentration`` [B]."""


ProbeMaker = Callable[[Layout], Probe]


class AttentionRecorder:
    """Collects the concentration of every recorded layer, once a solver's step.

    A step begins with an evaluation at its noise level. The step before may have looked ahead to that level (Heun), at
    a proposal that is then left: of evaluations at one level, one after the other, the last counts.

    Args:
        blocks: the recorded ones, in order.
        processor: makes their attention processors.
        probe: makes what they measure with, for a layout.
    """

    def __init__(self, blocks: Sequence[Any], processor: Processor, probe: ProbeMaker) -> None:
        self._blocks = blocks
        self._processor = processor
        self._probe = probe
        self._layout: Layout | None = None
        self._expected: Layout | None = None
        self._resting = [block.attn.processor for block in blocks]
        self._probing: list[Any] = []
        self._steps: list[tuple[float, Tensor]] = []

    @property
    def density(self) -> Tensor:
        """What was measured so far, ``[B, layers, T]`` float32, T steps; of maps, ``[B, layers, N, T]``."""
        return torch.stack([density for _, density in self._steps], dim=-1)

    def expect(self, layout: Layout | None) -> None:
        """Have the layers probe attentions of this layout from now on; None has them probe nothing."""
        if layout is self._expected:
            return
        if layout is not None and layout is not self._layout:
            probe = self._probe(layout)
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
    weights = token_weights(token_mask[None].cpu(), text_counted[None].cpu())[0].to(token_mask.device, torch.float32)

    def probe(layout: Layout) -> Probe:
        return Probe.of(token_mask[None], weights, layout, direction)

    with probing(blocks, processor, layers, probe) as recorder:
        yield recorder


@contextmanager
def probing(
    blocks: Sequence[Any], processor: Processor, layers: tuple[int, ...], probe: ProbeMaker
) -> Iterator[AttentionRecorder]:
    """Have layers of an editor measure inside the context; see `recording`.

    Raises:
        ValueError: a layer index does not exist.
    """
    for layer in layers:
        if not 0 <= layer < len(blocks):
            last = len(blocks) - 1
            raise ValueError(f"rollout.acd.layers names layer {layer}; this model has layers 0..{last}")
    recorded = [blocks[layer] for layer in layers]
    before = [block.attn.processor for block in recorded]
    try:
        yield AttentionRecorder(recorded, processor, probe)
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
