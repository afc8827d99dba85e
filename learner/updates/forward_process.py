"""DiffusionNFT's update of a group: flow matching towards good candidates and away from bad ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.updates.base import GroupUpdate
from rc_grpo.algorithm import nft
from rc_grpo.seeds import step_noise


class ForwardProcessUpdate(GroupUpdate):
    """One group under DiffusionNFT's objective; see `GroupUpdate`.

    Candidates are noised anew to the noise levels of the trained steps. The old policy is the one in the model: the
    configuration lets no group be stale, and no rollout be learned from twice.
    """

    def backward(self, scale: float, engine_backward: Callable[[Tensor], object], statistics: Statistics) -> None:
        """See `GroupUpdate`; backward is called once a trained step and pass."""
        final = self._candidates[-1]
        optimal = nft.optimality(self._advantages, self._config.advantage_clip)
        valid = ~optimal.isnan()
        even = torch.full_like(self._weights, 1 / self._weights.numel())
        weights = self._weights if self._config.nft.masked else even
        penalised = self._beside_base(scale / len(self._steps) / len(final), self._steps, statistics)
        for n in self._steps:
            sigma = float(self._sigmas[n])
            noise = step_noise(self._seeds, n, *self._weights.shape).to(final.device)
            for chosen in self._passes(len(final)):
                state, target = nft.noised(final[chosen], noise[chosen], sigma)
                velocity = penalised(state, sigma)
                r = torch.where(valid[chosen], optimal[chosen], 0.5).to(velocity.dtype)
                losses = nft.loss(velocity, velocity, target, r, self._config.nft.strength, weights)
                value = -torch.where(valid[chosen], losses, 0.0).sum() / valid.sum()
                engine_backward(penalised.take() - value * (scale / len(self._steps)))
                statistics.mean("objective", value)
