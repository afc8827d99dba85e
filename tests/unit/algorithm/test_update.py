"""The pieces together, as the README has them: the gradient of the whole objective, by every road."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm import adjoint
from rc_grpo.algorithm.metric import region_weights
from rc_grpo.algorithm.objective import clipped_surrogate, on_policy_pull, policy_kl
from rc_grpo.algorithm.perturbation import candidate_noise
from rc_grpo.algorithm.rewards import combine, group_advantages
from rc_grpo.algorithm.solver import integrate, kontext_sigmas
from rc_grpo.algorithm.surrogate import log_policy, log_ratio, sample_anchors

from .strategies import Flow, randn, relative_error, seeds

G, B, T, TOKENS, CHANNELS, CLIP = 6, 2, 4, 5, 3, 1e-2
MASK = torch.tensor([True, True, False, False, False])
SIGMAS = kontext_sigmas(T, 1024)
WEIGHTS = region_weights(MASK, CHANNELS, dtype=torch.float64)


class Rollout:
    """One group under its old weights, its advantages (one candidate failed), and its anchors."""

    def __init__(self, seed: int, method: str) -> None:
        self.method = method
        self.flow = Flow(TOKENS, CHANNELS, seed)
        noise = candidate_noise(
            randn(seed, TOKENS, CHANNELS), randn(seed + 1, G - 1, TOKENS, CHANNELS), MASK, 0.3, 0.01
        )
        with torch.no_grad():
            self.states = integrate(self.flow, noise, SIGMAS, method)
        task = randn(seed + 2, 1, G)
        task[0, 3] = torch.nan
        self.advantages = group_advantages(combine(task, randn(seed + 3, 1, G), 0.5), task=task).advantages[0]
        self.anchors = sample_anchors(G, B, seed)

    def objective(self, anchors: Tensor, beta: float = 0.0) -> Tensor:
        """Eq. 5 from anchors [T+1, B, N, C], by way of the policy: to be maximised."""
        candidates, old = self.states[1:, None], self.states[1:, self.anchors]
        log_rho = log_ratio(candidates, anchors[1:], old, WEIGHTS)
        value = clipped_surrogate(self.advantages, log_rho, CLIP)
        return value - beta * policy_kl(log_policy(candidates, old, WEIGHTS), log_rho)

    def through_the_chain(self, beta: float = 0.0) -> Tensor:
        """The gradient by autograd through everything: what no real model has the memory for."""
        self.flow.zero_grad()
        self.objective(integrate(self.flow, self.states[0, self.anchors], SIGMAS, self.method), beta).backward()
        return self.flow.gradients()


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
@given(seed=seeds)
@settings(max_examples=10)
def test_on_policy_the_pulls_and_the_adjoint_are_the_gradient_of_the_objective(method, seed):
    rollout = Rollout(seed, method)
    expected = rollout.through_the_chain()
    rollout.flow.zero_grad()
    for k in rollout.anchors:
        states = rollout.states[:, k]
        pulls = torch.zeros_like(states)
        for t in range(1, T + 1):
            pulls[t] = on_policy_pull(rollout.states[t], rollout.advantages, WEIGHTS) / (B * T)
        adjoint.backward(rollout.flow, states, SIGMAS, pulls, method=method)
    assert relative_error(rollout.flow.gradients(), expected) < 1e-9


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
@given(seed=seeds, beta=st.sampled_from([0.0, 0.1]))
@settings(max_examples=10)
def test_off_policy_the_policy_graph_and_the_adjoint_are_the_gradient_of_the_objective(method, seed, beta):
    rollout = Rollout(seed, method)
    with torch.no_grad():
        for parameter in rollout.flow.parameters():
            parameter += 0.02 * randn(seed + 9, *parameter.shape)
    expected = rollout.through_the_chain(beta)
    rollout.flow.zero_grad()
    with torch.no_grad():
        anchors = integrate(rollout.flow, rollout.states[0, rollout.anchors], SIGMAS, method)
    leaf = anchors.clone().requires_grad_()
    (pulls,) = torch.autograd.grad(rollout.objective(leaf, beta), leaf)
    adjoint.backward(rollout.flow, anchors, SIGMAS, pulls, method=method)
    assert relative_error(rollout.flow.gradients(), expected) < 1e-9


@given(seeds)
def test_a_step_along_the_gradient_makes_the_better_candidates_more_probable(seed):
    rollout = Rollout(seed, "euler")
    rollout.through_the_chain()
    before = rollout.objective(integrate(rollout.flow, rollout.states[0, rollout.anchors], SIGMAS))
    with torch.no_grad():
        for parameter in rollout.flow.parameters():
            parameter += 1e-4 * parameter.grad / rollout.flow.gradients().norm()
    after = rollout.objective(integrate(rollout.flow, rollout.states[0, rollout.anchors], SIGMAS))
    assert after > before
