"""The velocity of a task: one pass of the model, or two that classifier-free guidance makes one of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from rc_grpo.algorithm.adjoint import Backprop
from rc_grpo.editor.family import Body, Bound, Forward, Guidance
from rc_grpo.editor.prefix import Held, Maker, Prefix, Trained, Weights
from rc_grpo.editor.recording import Layout


def is_two_passes(guidance: Guidance, scale: float) -> bool:
    """Tell whether an evaluation runs the model twice: as stock pipelines do, at a scale above 1."""
    return guidance == "cfg" and scale > 1.0


def classifier_free(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    """Return ``negative + scale * (positive - negative)``: plain classifier-free guidance."""
    return negative + scale * (positive - negative)


class GuidedVelocity:
    """``v(x, sigma)`` of one task.

    Under classifier-free guidance both passes are in it, one after the other: batched they would not have the bits of
    the stock pipeline. Whoever differentiates it (the adjoint) goes back through both.

    Args:
        body: combines the two.
        positive: of the prompt.
        negative: of the negative text; None runs no guidance.
        scale: of the guidance.
        forward: returns what the model is called by at that moment.
        before: called with the positive pass's layout before it, and with None before the negative one, whose text may
            be of another length: what is recorded is recorded of the prompt alone.
        after: called with the noise level after the positive pass.
        weights: in the model, if what does not depend on the states is computed once; None computes it in every pass.
    """

    def __init__(
        self,
        body: Body,
        positive: Bound,
        negative: Bound | None,
        scale: float,
        forward: Callable[[], Forward],
        before: Callable[[Layout | None], object],
        after: Callable[[float], object],
        weights: Weights | None = None,
    ) -> None:
        self._body = body
        self._positive = positive
        self._negative = negative
        self._scale = scale
        self._forward = forward
        self._before = before
        self._after = after
        self._weights = weights
        self._held: Held | None = None

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Return the velocity at states ``[B, N, C]``, in their shape and dtype (float32)."""
        forward = self._forward()
        prefixes = (None, None) if self._held is None else self._held.now()
        self._before(self._positive.layout if prefixes[0] is None else prefixes[0].layout)
        positive = self._positive(forward, x, sigma, prefixes[0])
        self._after(sigma)
        if self._negative is None:
            return positive
        self._before(None)
        negative = self._negative(forward, x, sigma, prefixes[1])
        return self._body.combine(positive, negative, self._scale)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Compute once, for all calls inside the context, what does not depend on the states or the noise level.

        The weights must stay what they are inside: a call under others is refused.

        Raises:
            RuntimeError: gradients are on.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("a prefix is held without gradients only: none would reach the weights through it")
        if self._weights is None:
            yield
            return
        with self._holding(Held(self._makers(), self._weights)):
            yield

    @contextmanager
    def trained(self, engine: Backprop) -> Iterator[Backprop]:
        """Compute that once with gradients, for all calls inside the context that learn from the task.

        Args:
            engine: runs backward from a scalar; called once more at the end of the context if anything is shared.

        Yields:
            What to run backward by inside.
        """
        if self._weights is None:
            yield engine
            return
        prefixes = Trained(self._makers(), self._weights, engine)
        with self._holding(prefixes):
            yield prefixes.backprop
        prefixes.finish()

    @contextmanager
    def _holding(self, prefixes: Held) -> Iterator[None]:
        self._held = prefixes
        try:
            yield
        finally:
            self._held = None

    def _makers(self) -> tuple[Maker, ...]:
        texts = (self._positive,) if self._negative is None else (self._positive, self._negative)
        return tuple(partial(_prefix, text, self._forward()) for text in texts)


def _prefix(text: Bound, forward: Forward) -> Prefix | None:
    # Once a task: blocks are not compiled anew for it.
    with torch.compiler.set_stance("force_eager"):
        return text.prefill(forward)
