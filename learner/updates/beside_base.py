"""The policy's velocity in `backward`, and how it compares with the base model's: penalties, and norms to watch."""

import torch
from torch import Tensor

from learner.statistics import Statistics
from rc_grpo.algorithm.norm_guard import excess, norm_ratios
from rc_grpo.algorithm.solver import Velocity
from rc_grpo.config import ObjectiveConfig
from rc_grpo.editor.denoiser import Denoiser


class VelocityBesideBase:
    """A velocity that collects what its distance to the base model's costs, a sum over trajectories.

    Of a step of several evaluations (Heun) their mean counts, so that a weight means the same under every solver. The
    norms are logged from one evaluation a group: the base model is asked for no other, unless a penalty needs it.

    Args:
        velocity: of the policy.
        denoiser: which the base model is in.
        config: the objective, with the penalties' weights.
        share: of a trajectory at a step in the batch.
        mask: ``[N]`` bool, the region to edit.
        watched: the noise level at which norms are compared.
        statistics: receives the norms' ratios.
    """

    def __init__(
        self,
        velocity: Velocity,
        denoiser: Denoiser,
        config: ObjectiveConfig,
        share: float,
        mask: Tensor,
        watched: float,
        statistics: Statistics,
    ) -> None:
        self._velocity = velocity
        self._denoiser = denoiser
        self._distance, self._inflation = config.reference_penalty * share, config.norm_penalty * share
        self._mask = mask
        self._watched: float | None = watched
        self._statistics = statistics
        self._collected: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Return the policy's velocity."""
        value = self._velocity(x, sigma)
        is_penalised = self._distance > 0 or self._inflation > 0
        if not is_penalised and sigma != self._watched:
            return value
        # For one evaluation a group, compiled blocks are not compiled once more without their adapters.
        with torch.no_grad(), self._denoiser.policy.disabled(), stance(eager=not is_penalised):
            base = self._velocity(x.detach(), sigma)
        ratios = norm_ratios(value, base, self._mask)
        if sigma == self._watched:
            self._watched = None
            for name, ratio in zip(("edit", "background"), ratios.detach().mean(dim=0), strict=True):
                self._statistics.mean(f"velocity_norm_{name}", ratio)
        if is_penalised:
            distance = len(x) * (value - base).square().mean()
            self._collected.append(self._distance * distance + self._inflation * excess(ratios).sum())
        return value

    def take(self) -> Tensor | float:
        """Return what the step since the last call costs."""
        collected, self._collected = self._collected, []
        return torch.stack(collected).mean() if collected else 0.0


def stance(*, eager: bool) -> torch.compiler.set_stance:
    """Return a context in which compiled code runs as it was written, or as it was compiled."""
    return torch.compiler.set_stance("force_eager" if eager else "default")
