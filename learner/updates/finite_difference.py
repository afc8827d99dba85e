"""FDFO's update of a group: velocities pulled along differences to better images."""

from collections.abc import Callable

import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.updates.base import GroupUpdate
from rc_grpo.algorithm import fdfo


class FiniteDifferenceUpdate(GroupUpdate):
    """One group under FDFO's objective, its anchors paired with the reference; see `GroupUpdate`.

    Its gradient needs no old policy; the configuration lets no group be stale, and no rollout be learned from twice.
    """

    def backward(self, scale: float, engine_backward: Callable[[Tensor], object], statistics: Statistics) -> None:
        """See `GroupUpdate`; backward is called once a trained step and pass."""
        pair = [0, *self._anchors]
        pulls = fdfo.pull(self._candidates[-1, pair], self._advantages[pair], self._weights)
        # The reference is in every pair, and each pair pulls both of its sides.
        directions = torch.cat([pulls.sum(dim=0, keepdim=True), pulls]) / (2 * len(pulls))
        penalised = self._beside_base(scale / len(self._steps) / len(pair), self._steps, statistics)
        for n in self._steps:
            states = self._candidates[n, pair]
            for chosen in self._passes(len(pair)):
                velocity = penalised(states[chosen], float(self._sigmas[n]))
                value = -fdfo.loss(velocity, directions[chosen], self._weights).sum()
                engine_backward(penalised.take() - value * (scale / len(self._steps)))
                statistics.mean("objective", value)
