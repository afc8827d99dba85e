"""Keys and values that do not depend on the image being made, computed once and read by every pass."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rc_grpo.algorithm.adjoint import Backprop
from rc_grpo.config import EditorConfig
from rc_grpo.editor.recording import Layout


@dataclass(frozen=True)
class Prefix:
    """What a model's layers keep of tokens that never see the target, under one set of weights.

    At no noise level: then every step and every candidate of a task reads the same ones. A new version of the weights
    makes them stale, time does not.

    Attributes:
        keys: of every layer, ``[1, P, H, D]``, rotated.
        values: of every layer, ``[1, P, H, D]``.
        layout: of an attention whose queries come behind it.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    layout: Layout


class StalePrefixError(RuntimeError):
    """The weights changed under a prefix that is still read."""


class Weights(Protocol):
    """As much of `rc_grpo.editor.weights.policy.Policy` as a prefix depends on."""

    @property
    def changes(self) -> int:
        """How often they were changed, or a number that no two states of theirs share."""
        ...

    @property
    def acting(self) -> bool:
        """The policy acts, not the base model."""
        ...


Maker = Callable[[], Prefix | None]


class Held:
    """The prefixes of a task's texts, without gradients, under the weights of its making.

    Those of the base model are made when it first runs.

    Args:
        makers: one a text.
        weights: in the model.
    """

    def __init__(self, makers: Sequence[Maker], weights: Weights) -> None:
        self._makers = makers
        self._weights = weights
        self._changes = weights.changes
        self._made: dict[bool, tuple[Prefix | None, ...]] = {}

    def now(self) -> tuple[Prefix | None, ...]:
        """Return the texts' prefixes under the weights that act, policy or base model.

        Raises:
            StalePrefixError: the policy's weights are not those of the making.
        """
        if self._weights.changes != self._changes:
            raise StalePrefixError(
                "the policy's weights changed while a prefix was held: another version would read it than wrote it"
            )
        if self._weights.acting not in self._made:
            with torch.no_grad():
                self._made[self._weights.acting] = tuple(make() for make in self._makers)
        return self._made[self._weights.acting]


class Trained(Held):
    """Prefixes with gradients, computed once for all passes that learn from a task.

    Passes read leaves, so that each pass's graph ends there and is freed with it. What reaches the leaves is summed, in
    float32 at least, and one more backward pass, of the sum, goes through what made them.

    Args:
        makers: one a text.
        weights: in the model.
        engine: runs backward; the same constant multiplies every scalar.
    """

    def __init__(self, makers: Sequence[Maker], weights: Weights, engine: Backprop) -> None:
        super().__init__(makers, weights)
        self._engine = engine
        self._factor: Tensor | None = None
        self._sums: list[tuple[Tensor, Tensor]] = []
        with torch.enable_grad():
            whole = [make() for make in makers]
        self._made[True] = tuple(None if prefix is None else self._cut(prefix) for prefix in whole)

    def backprop(self, scalar: Tensor) -> None:
        """Run backward from a scalar, and see by what the engine multiplies it."""
        factor = torch.zeros((), dtype=scalar.dtype, device=scalar.device, requires_grad=True)
        self._engine(scalar + factor)
        self._factor = factor.grad

    def finish(self) -> None:
        """Run backward through the prefixes, once whatever the gradients are, so that ranks stay in step.

        Raises:
            ValueError: nothing ran backward before.
        """
        if self._factor is None:
            raise ValueError("no pass ran backward, so that nothing is known of what reaches the prefix")
        # A prefix that no trained weight is in has none on any rank.
        if self._sums:
            self._engine(torch.stack([(whole * (total / self._factor)).sum() for whole, total in self._sums]).sum())

    def _cut(self, prefix: Prefix) -> Prefix:
        return Prefix(
            tuple(self._leaf(keys) for keys in prefix.keys),
            tuple(self._leaf(values) for values in prefix.values),
            prefix.layout,
        )

    def _leaf(self, whole: Tensor) -> Tensor:
        leaf = whole.detach()
        if whole.requires_grad:
            total = torch.zeros_like(whole, dtype=torch.promote_types(whole.dtype, torch.float32))

            def add(reached: Tensor) -> None:
                assert reached.grad is not None
                total.add_(reached.grad)
                reached.grad = None

            leaf.requires_grad_().register_post_accumulate_grad_hook(add)  # type: ignore[no-untyped-call]
            self._sums.append((whole, total))
        return leaf


def require_prefix(editor: EditorConfig, shares: bool) -> None:
    """Refuse a configuration that shares what its model has not.

    Args:
        editor: the configuration.
        shares: the model's text and source, or its source alone, never see the target.

    Raises:
        ValueError: ``editor.prefix`` is shared, and there is nothing to share.
    """
    if editor.prefix == "shared" and not shares:
        raise ValueError(
            f"editor.prefix is shared, and everything in {editor.model} sees the image that is made, so that nothing "
            "can be computed once for all; set editor.prefix=none"
        )
