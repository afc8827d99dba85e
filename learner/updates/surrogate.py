"""RC-GRPO's update of a group: its share of the objective's gradient, by surrogate ratios and the discrete adjoint."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from learner.statistics import Statistics
from learner.updates.base import GroupUpdate
from rc_grpo.algorithm import adjoint, objective, solver, surrogate


class SurrogateUpdate(GroupUpdate):
    """One group under the paper's objective, and Neighbor GRPO's; see `GroupUpdate`."""

    figures: ClassVar[tuple[str, ...]] = ("objective", "kl")
    by_chain: ClassVar[bool] = True

    def _begin(self) -> None:
        self._method = self._run.method
        self.stored = self._candidates[:, self._anchors]
        """The anchors' trajectories as rolled out, ``[T+1, B, N, C]``."""
        self.path = self.old = self.stored
        """The anchors' under the weights now in the model, and under those that rolled out, of the same form."""
        inside = self._mask[:, None].to(self._weights.dtype)
        self._regions = {"edit": self._weights * inside, "background": self._weights * (1 - inside)}

    def prepare(self, old: Tensor | None, recompute: Callable[[], Tensor], *, on_policy: bool, again: bool) -> Tensor:
        """Find the anchors' path under the weights now in the model, and under those that rolled out.

        On the first step on policy the two are one tensor, so that the ratio is exactly 1 whatever the kernels do: what
        was rolled out, unless later steps compare a path of the learner's own kernels with it.
        """
        stored = self._config.old_path == "stored"
        if old is None and on_policy:
            own = not stored and again
            self.path = self.old = self.values() if own else self.stored
            if self._beside_stale:
                for _ in range((1 if stored else 2) - own):
                    self.values()  # For its passes alone: a stale group's two paths are both found, if none is stored.
        else:
            self.old = old if old is not None else self.stored if stored else recompute()
            self.path = self.values()
        return self.old

    @torch.no_grad()
    def values(self) -> Tensor:
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

    def backward(self, scale: float, engine_backward: Callable[[Tensor], object], statistics: Statistics) -> None:
        """See `GroupUpdate`; backward is called once a trained step and pass."""
        path = self.path
        gradients = self._state_gradients(path, self.old, scale, statistics)
        # A chain is recomputed through every step, trained or not; the penalty is a mean over what is recomputed.
        recomputed = range(len(path) - 1) if self._config.anchor_path == "chain" else self._steps
        share = scale / len(recomputed) / path.shape[1]
        penalised = self._beside_base(share, recomputed, statistics)
        for chosen in self._passes(path.shape[1]):
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
