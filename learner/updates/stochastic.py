"""Flow-GRPO's update of a group, and MixGRPO's: ratios of the densities of stochastic steps, for every candidate."""

from collections.abc import Callable

import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.updates.base import GroupUpdate
from rc_grpo.algorithm import objective, sde
from rc_grpo.algorithm.solver import Velocity
from rc_grpo.seeds import step_noise


class StochasticUpdate(GroupUpdate):
    """One group under Flow-GRPO's objective; see `GroupUpdate`. Trained steps are stochastic ones."""

    def prepare(self, old: Tensor | None, recompute: Callable[[], Tensor], *, on_policy: bool, again: bool) -> Tensor:
        """Find the means of the steps under the weights that rolled out: a state less its noise, if not recomputed."""
        self._is_first = old is None and on_policy
        if self._is_first and self._beside_stale and self._config.old_path == "recompute":
            self.values()  # For its passes alone.
        if old is None:
            old = self._sampled() if on_policy or self._config.old_path == "stored" else recompute()
        self._old = old
        return old

    @torch.no_grad()
    def values(self) -> Tensor:
        """Return the means ``[K, G, N, C]`` of the trained steps under the weights now in the model."""
        with self._velocity.held():
            return torch.stack([self._mean(self._velocity, n, self._candidates[n]) for n in self._steps])

    def backward(self, scale: float, engine_backward: Callable[[Tensor], object], statistics: Statistics) -> None:
        """See `GroupUpdate`; backward is called once a trained step and pass."""
        group = self._candidates.shape[1]
        valid = ~self._advantages.isnan()
        penalised = self._beside_base(scale / len(self._steps) / group, self._steps, statistics)
        for row, n in enumerate(self._steps):
            std = sde.spread(self._sigmas, n, self._level)
            for chosen in self._passes(group):
                mean = self._mean(penalised, n, self._candidates[n, chosen])
                # On policy the ratio is exactly 1, whatever the kernels do.
                old = mean.detach() if self._is_first else self._old[row, chosen]
                ratio = sde.log_ratio(self._candidates[n + 1, chosen], mean, old, std)
                advantages = self._advantages[chosen]
                # A mean over the candidates of the pass, weighted to be one over those of the group.
                part = valid[chosen].sum() / valid.sum()
                value = part * objective.clipped_surrogate(advantages, ratio, self._config.clip)
                engine_backward(penalised.take() - value * (scale / len(self._steps)))
                statistics.mean("objective", value)
                statistics.mean("kl", (mean.detach() - old).square().mean() / (2 * std**2))
                statistics.mean("clip_fraction", objective.clip_fraction(advantages, ratio, self._config.clip))
                statistics.maximum("max_abs_log_ratio", ratio.abs().max())

    @property
    def _level(self) -> float:
        assert self._run.sde is not None
        return self._run.sde.level

    def _mean(self, velocity: Velocity, n: int, states: Tensor) -> Tensor:
        return sde.mean(states, velocity(states, float(self._sigmas[n])), self._sigmas, n, self._level)

    def _sampled(self) -> Tensor:
        noises = (step_noise(self._seeds, n, *self._weights.shape) for n in self._steps)
        return torch.stack(
            [
                self._candidates[n + 1] - sde.spread(self._sigmas, n, self._level) * noise.to(self._candidates.device)
                for n, noise in zip(self._steps, noises, strict=True)
            ]
        )
