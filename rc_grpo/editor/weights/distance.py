"""How far a LoRA has taken the policy from its base model, in the weights themselves."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from rc_grpo.config import LoraSettings
from rc_grpo.editor.weights.policy import Policy


class DistanceFromBase:
    """The Frobenius norm of ``scale * B A`` over all adapted projections together, relative to that of their weights.

    Args:
        policy: whose base weights are whole.
        settings: rank and scale.
    """

    def __init__(self, policy: Policy, settings: LoraSettings) -> None:
        self._scale = settings.alpha / settings.rank
        squares = [weight.float().square().sum() for weight in policy.base().values()]
        self._base = math.sqrt(float(torch.stack(squares).double().sum()))

    @torch.no_grad()
    def __call__(self, weights: Mapping[str, Tensor]) -> float:
        """Return the distance of a version; 0 for the untrained one."""
        squares = []
        for name, a in weights.items():
            if ".lora_A." not in name:
                continue
            b = weights[name.replace(".lora_A.", ".lora_B.")]
            # |BA|^2 = <B^T B, A A^T>: two matrices of the LoRA's rank instead of one of the projection's size.
            squares.append(((b.T @ b) * (a @ a.T)).sum())
        # Rounding can take a sum of nothing below 0.
        change = float(torch.stack(squares).double().sum().clamp(min=0))
        return self._scale * math.sqrt(change) / self._base
