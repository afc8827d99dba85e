"""LoRA merged into the weights: a rollout then costs what the base model costs.

Every version is merged into a pristine copy of the base weights, so nothing drifts, and A, B, A gives A's bits again.
The merged weights stay where they were in memory: a compiled or captured forward pass goes on with them as it is.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.fast.rounding import round_stochastically
from rc_grpo.seeds import derive


class Projection(Protocol):
    """A linear layer as far as merging goes; a quantised one has a ``scale`` ``[out, 1]`` as well."""

    weight: Tensor


class MergedPolicy:
    """LoRA weights that act through the projections' own weights. For rollouts: nothing here trains.

    Rounding is stochastic, from seeds that are functions of the weights' digest (see `round_stochastically`).

    Args:
        transformer: is frozen; its projections are ``nn.Linear`` or `rc_grpo.editor.fast.fp8.Fp8Linear`.
        expected: the projections that get a LoRA, see `rc_grpo.editor.lora.adapted`.
        settings: rank and scale.
        seed: of the first weights, which are those of `rc_grpo.editor.lora.attach`.

    Raises:
        ValueError: the transformer lacks one of them.
    """

    def __init__(self, transformer: nn.Module, expected: lora.Shapes, settings: LoraSettings, seed: int) -> None:
        transformer.requires_grad_(False)
        self._projections = cast(dict[str, Projection], lora.targets(transformer, expected))
        self._scale = settings.alpha / settings.rank
        self._pristine = {name: module.weight.detach().clone() for name, module in self._projections.items()}
        first: dict[str, Tensor] = {}
        for name, pristine in self._pristine.items():
            out, width = pristine.shape
            for key, tensor in lora.initial(name, (out, width), settings.rank, seed).items():
                first[key] = tensor.to(pristine.device)
        self._weights = dict(sorted(first.items()))
        self._digest = lora.digest(self._weights)
        self.modules = len(self._projections)
        self.changes = 0
        self.acting = True
        if next(iter(self._pristine.values())).is_cuda:
            self._compile()

    def weights(self) -> Mapping[str, Tensor]:
        """Return the LoRA weights that were merged last."""
        return self._weights

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> int:
        """Merge other weights: ``round(pristine + scale * B A)`` in every projection."""
        lora.require_fitting(self._weights, weights)
        # In the precision that they come in: the digest is of the bits that travelled.
        self._weights = {name: own.to(weights[name].dtype).copy_(weights[name]) for name, own in self._weights.items()}
        self._digest = lora.digest(self._weights)
        self.changes += 1
        self._merge()
        return self.modules

    def digest(self) -> str:
        """Return the digest that was taken of the weights before they were merged."""
        return self._digest

    def base(self) -> Mapping[str, Tensor]:
        """Return the pristine weights, in the precision that they are stored in."""
        return self._pristine

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Put the pristine weights back inside the context."""
        for name, module in self._projections.items():
            module.weight.copy_(self._pristine[name])
        self.acting = False
        try:
            yield
        finally:
            self.acting = True
            self._merge()

    @torch.no_grad()
    def arrived(self) -> float:
        """Return the share of the LoRA's change that the merged weights carry, in the direction of that change.

        1 is all of it; the rest was lost to rounding. NaN where there is no change.
        """
        along = of = torch.zeros((), dtype=torch.float64)
        for name, module in self._projections.items():
            change = self._change(name)
            moved = (module.weight.float() - self._pristine[name].float()) * _unit(module)
            along = along + (moved * change).sum().double().cpu()
            of = of + change.square().sum().double().cpu()
        return float(along / of)

    def _compile(self) -> None:
        """Add nothing in every precision that versions travel in: a kernel takes seconds that nobody waits for yet."""
        first = self._weights
        for dtype in lora.TRAVELLING.values():
            self._weights = lora.rounded(first, dtype)
            self._merge()
        self._weights = first

    @torch.no_grad()
    def _merge(self) -> None:
        for name, module in self._projections.items():
            weight, pristine, seed = module.weight, self._pristine[name], derive("merge", self._digest, name)
            if weight.is_cuda and weight.dtype != torch.float32:
                from rc_grpo.editor.fast import triton_kernels

                b, a = (self._weights[f"{name}.lora_{part}.weight"] for part in "BA")
                unit = getattr(module, "scale", None)
                triton_kernels.merge(weight, pristine, b, a, self._scale, unit, seed)
            else:
                merged = pristine.float() + self._change(name) / _unit(module)
                weight.copy_(round_stochastically(merged, weight.dtype, seed))

    def _change(self, name: str) -> Tensor:
        b, a = (self._weights[f"{name}.lora_{part}.weight"].float() for part in "BA")
        return self._scale * (b @ a)


def _unit(module: Projection) -> Tensor | float:
    """Return what a stored weight of 1 stands for, by row."""
    return getattr(module, "scale", 1.0)
