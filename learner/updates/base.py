"""What the update of one group is, whatever the algorithm: tensors on the device, and a gradient to accumulate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.updates.beside_base import VelocityBesideBase
from learner.work import GroupWork, RunShape
from rc_grpo.algorithm import metric
from rc_grpo.config import ObjectiveConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, Conditions


class GroupUpdate(ABC):
    """One group in the learner.

    Args:
        denoiser: the policy being trained.
        group: the candidates, with their states.
        conditions: of the task.
        work: what is asked for.
        config: the objective.
        run: how rollouts sample.
        at_once: trajectories that go through the model together; None is all.
    """

    figures: ClassVar[tuple[str, ...]] = ("objective",)
    """Means that must be finite."""

    by_chain: ClassVar[bool] = False
    """The update of a group is the mean of its anchors' updates, each of them alone."""

    def __init__(
        self,
        denoiser: Denoiser,
        group: CandidateGroup,
        conditions: Conditions,
        work: GroupWork,
        config: ObjectiveConfig,
        run: RunShape,
        at_once: int | None = None,
    ) -> None:
        if group.states is None:
            raise ValueError(f"the group of {group.task_id} came without its trajectory and cannot be learned from")
        device = denoiser.device
        self._denoiser = denoiser
        self._config = config
        self._run = run
        self._seeds = group.seeds.reference, *group.seeds.deltas
        self._anchors = list(work.anchors)
        self._steps = work.steps
        self._turn = work.turn
        self._beside_stale = work.beside_stale
        self._at_once = at_once
        self._sigmas = torch.tensor(group.sigmas)
        self._advantages = torch.tensor(work.advantages, device=device)
        self._candidates = torch.tensor(group.states, device=device).transpose(0, 1)
        """``[T+1, G, N, C]``."""
        self._velocity = denoiser.velocity(conditions)
        self._mask = torch.tensor(group.token_mask, device=device)
        channels = self._candidates.shape[-1]
        self._weights = metric.region_weights(self._mask, channels, config.tau_edit, config.tau_base, config.power)
        self._begin()

    def _begin(self) -> None:  # noqa: B027 - most updates have nothing to add
        """Set up what the kind of update has beside all this."""

    def prepare(
        self, old: Tensor | None, recompute: Callable[[], Tensor], *, on_policy: bool, again: bool
    ) -> Tensor | None:
        """Do what needs no gradient, before `backward`; nothing, where no ratio is compared.

        Args:
            old: what this returned at an earlier step on the group.
            recompute: calls `values` under the weights that rolled out.
            on_policy: those are the ones in the model, before the first step.
            again: further steps on the group follow.

        Returns:
            What further steps on the group have to know of the weights that rolled out.
        """
        return None

    def values(self) -> Tensor:
        """Return what of a ratio depends on the weights, under those now in the model, without gradient."""
        raise NotImplementedError(f"{type(self).__name__} compares no ratio")

    def learn(self, scale: float, engine_backward: Callable[[Tensor], object], statistics: Statistics) -> None:
        """Do what `backward` does, with what no candidate changes computed once (``editor.prefix``).

        That takes one backward pass more, for every group.
        """
        with self._velocity.trained(engine_backward) as backprop:
            self.backward(scale, backprop, statistics)

    @abstractmethod
    def backward(self, scale: float, engine_backward: Callable[[Tensor], object], statistics: Statistics) -> None:
        """Accumulate the gradient of ``-scale * J`` of this group in the parameters.

        Args:
            scale: the group's share of the batch.
            engine_backward: runs backward from a scalar to be minimised; called as often for every group.
            statistics: receives the diagnostics.
        """

    def _passes(self, count: int) -> tuple[Tensor, ...]:
        """Split so many trajectories into those that go through the model together."""
        return torch.arange(count, device=self._denoiser.device).split(self._at_once or count)

    def _beside_base(self, share: float, steps: Sequence[int], statistics: Statistics) -> VelocityBesideBase:
        """Return the velocity for `backward`, one trajectory of a step of which counts ``share`` of the batch.

        Args:
            share: of a trajectory at a step.
            steps: that `backward` goes through.
            statistics: receives the norms.
        """
        # Another step each turn, so that all noise levels are seen, and the same on all ranks.
        sigma = float(self._sigmas[steps[self._turn % len(steps)]])
        return VelocityBesideBase(self._velocity, self._denoiser, self._config, share, self._mask, sigma, statistics)
