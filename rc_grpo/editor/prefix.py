"""Keys and values that do not depend on the image being made, computed once and read by every pass."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """What a model's layers keep of the tokens in front of the target, under one set of weights.

    Of a model in which text and source never see the target, at no noise level: then every step and every candidate of
    a task reads the same ones. A new version of the weights makes them stale, time does not.

    Attributes:
        keys: of every layer, ``[1, P, H, D]``, rotated.
        values: of every layer, ``[1, P, H, D]``.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
