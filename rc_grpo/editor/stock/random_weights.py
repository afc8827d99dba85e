"""Models of a published architecture with random weights: what to measure on where the real ones are not at hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class FullSize:
    """A published architecture with random weights.

    Attributes:
        build_transformer: from device and precision.
        build_pipeline: from device and precision; a component given by name is taken as it is, also None.
    """

    build_transformer: Callable[..., Any]
    build_pipeline: Callable[..., Any]


def random_weights(make: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Any:
    """Return a frozen model that ``make`` builds on a device, in a precision; the same weights every time there.

    Args:
        make: builds it in PyTorch's defaults.
        device: where; ``meta`` builds shapes alone.
        dtype: of the weights.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            return make().eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(before)


def assembled(pipeline: Callable[..., Any], makers: Mapping[str, Callable[[], Any]], given: Mapping[str, Any]) -> Any:
    """Return a pipeline of components that are given, also None, and of those that are made because they are not."""
    return pipeline(**{name: make() for name, make in makers.items() if name not in given}, **given)
