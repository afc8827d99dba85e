"""The update on one rank: a group's share of the objective's gradient, by surrogate ratios and the discrete adjoint."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.work import GroupWork
from rc_grpo.algorithm import adjoint, metric, objective, solver, surrogate
from rc_grpo.algorithm.solver import Velocity
from rc_grpo.config import ObjectiveConfig, Solver
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, Conditions


class GroupUpdate:
    """One group in the learner.

    Args:
        denoiser: the policy being trained.
        group: the candidates, with their states.
        conditions: of the task.
        work: what is asked for.
        config: the objective.
        method: the solver of rollout and learner.
        anchors_per_pass: that go through the model together; None is all.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        group: CandidateGroup,
        conditions: Conditions,
        work: GroupWork,
        config: ObjectiveConfig,
        method: Solver,
        anchors_per_pass: int | None = None,
    ) -> None:
        if group.states is None:
            raise ValueError(f"the group of {group.task_id} came without its trajectory and cannot be learned from")
        device = denoiser.device
        self._denoiser = denoiser
        self._config = config
        self._method = method
        self._passes = torch.arange(len(work.anchors)).split(anchors_per_pass or len(work.anchors))
        self._steps = work.steps
        self._sigmas = torch.tensor(group.sigmas)
        self._advantages = torch.tensor(work.advantages, device=device)
        self._candidates = torch.tensor(group.states, device=device).transpose(0, 1)
        self.stored = self._candidates[:, list(work.anchors)]
        """The anchors' trajectories as rolled out, ``[T+1, B, N, C]``."""
        self._velocity = denoiser.velocity(conditions)
        mask = torch.tensor(group.token_mask, device=device)
        channels = self._candidates.shape[-1]
        self._weights = metric.region_weights(mask, channels, config.tau_edit, config.tau_base, config.power)
        inside = mask[:, None].to(self._weights.dtype)
        self._regions = {"edit": self._weights * inside, "background": self._weights * (1 - inside)}

    @torch.no_grad()
    def anchor_path(self) -> Tensor:
        """Return the anchors' states ``[T+1, B, N, C]`` under the weights now in the model (Eq. 13).

        ``chain``: integrated from their noise. ``step``: each trained state is one step from the stored one before it.
        """
        with self._velocity.held():
            if self._config.anchor_path == "chain":
                return solver.integrate(self._velocity, self.stored[0], self._sigmas, self._method)
            path = self.stored.clone()
            memories = solver.memories(self.stored, self._sigmas, self._method)
            for n in self._steps:
                path[n + 1], _ = solver.step(self._velocity, self.stored[n], self._sigmas, n, memories[n], self._method)
            return path

    def backward(
        self,
        path: Tensor,
        old: Tensor,
        scale: float,
        engine_backward: Callable[[Tensor], object],
        statistics: Statistics,
    ) -> None:
        """Accumulate the gradient of ``-scale * J`` of this group in the parameters.

        Args:
            path: the anchors under the weights now in the model, see `anchor_path`.
            old: the anchors under the weights that rolled out; equal to ``path`` on policy.
            scale: the group's share of the batch.
            engine_backward: runs backward from a scalar to be minimised; called once a trained step and pass.
            statistics: receives the ratio's diagnostics.
        """
        gradients = self._state_gradients(path, old, scale, statistics)
        # A chain is recomputed through every step, trained or not; the penalty is a mean over what is recomputed.
        recomputed = len(path) - 1 if self._config.anchor_path == "chain" else len(self._steps)
        share = scale / recomputed / path.shape[1]
        penalised = _ReferencePenalty(self._velocity, self._denoiser, self._config.reference_penalty * share)
        for chosen in self._passes:
            states = path[:, chosen]
            shared: dict[str, Any] = {
                "method": self._method,
                "backprop": lambda scalar: engine_backward(penalised.take() - scalar),
                "on_step": partial(self._compare, states=states, statistics=statistics),
            }
            if self._config.anchor_path == "chain":
                adjoint.backward(penalised, states, self._sigmas, gradients[:, chosen], **shared)
            else:
                stored = self.stored[:, chosen]
                adjoint.step_backward(penalised, stored, self._sigmas, gradients[:, chosen], self._steps, **shared)

    def _state_gradients(self, path: Tensor, old: Tensor, scale: float, statistics: Statistics) -> Tensor:
        """Return dJ/dxbar at every trained state, by autograd on the policy alone; 0 elsewhere."""
        config, gradients = self._config, torch.zeros_like(path)
        for n in self._steps:
            candidates, anchors_old = self._candidates[n + 1], old[n + 1]
            anchors = path[n + 1].detach().requires_grad_()
            log_ratio = surrogate.log_ratio(candidates, anchors, anchors_old, self._weights)
            value = objective.clipped_surrogate(self._advantages, log_ratio, config.clip)
            divergence = objective.policy_kl(surrogate.log_policy(candidates, anchors_old, self._weights), log_ratio)
            (gradient,) = torch.autograd.grad(value - config.beta * divergence, anchors)
            gradients[n + 1] = gradient * (scale / len(self._steps))
            statistics.mean("objective", value)
            statistics.mean("kl", divergence)
            statistics.mean("clip_fraction", objective.clip_fraction(self._advantages, log_ratio, config.clip))
            statistics.maximum("max_abs_log_ratio", log_ratio.abs().max())
            for region, weights in self._regions.items():
                part = surrogate.log_ratio(candidates, anchors.detach(), anchors_old, weights)
                statistics.maximum(f"max_abs_log_ratio_{region}", part.abs().max())
                clipped = objective.clip_fraction(self._advantages, part, config.clip)
                statistics.mean(f"clip_fraction_{region}", clipped)
        return gradients

    def _compare(self, n: int, recomputed: Tensor, states: Tensor, statistics: Statistics) -> None:
        """Log how far the recomputed step lands from the path: zero but for kernels, unless the weights differ."""
        ratio = surrogate.log_ratio(self._candidates[n + 1], recomputed, states[n + 1], self._weights)
        statistics.maximum("recomputed_max_abs_log_ratio", ratio.abs().max())
        statistics.maximum("recomputed_max_deviation", (recomputed - states[n + 1]).abs().max())


class _ReferencePenalty:
    """A velocity that also collects its mean squared distance to the base model's, a sum over anchors, if penalised.

    Of a step of several evaluations (Heun) their mean counts, so that the weight means the same under every solver.
    """

    def __init__(self, velocity: Velocity, denoiser: Denoiser, weight: float) -> None:
        self._velocity = velocity
        self._denoiser = denoiser
        self._weight = weight
        self._collected: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        value = self._velocity(x, sigma)
        if self._weight > 0:
            with torch.no_grad(), self._denoiser.policy.disabled():
                base = self._velocity(x.detach(), sigma)
            self._collected.append(self._weight * len(x) * (value - base).square().mean())
        return value

    def take(self) -> Tensor | float:
        """Return what the step since the last call costs."""
        collected, self._collected = self._collected, []
        return torch.stack(collected).mean() if collected else 0.0
