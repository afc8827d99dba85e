"""The updates of the arms that the method is compared with, with plain autograd in DeepSpeed's place."""

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.statistics import Statistics, merge
from learner.updates import UPDATES, GroupUpdate
from learner.work import GroupWork, RunShape, draw_steps
from rc_grpo.algorithm import sde
from rc_grpo.config import Algorithm, NftConfig, ObjectiveConfig, SdeConfig
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, Conditions
from rc_grpo.seeds import normal, step_noise
from tests.unit.learner.conftest import group_of

ADVANTAGES = np.array([0.4, -1.2, 1.5, -0.7])
ALL_SEEDS = (10, 11, 12, 13)
RUN = RunShape(0, "euler", 3, 4, 0, {}, SdeConfig(level=0.6))
ARMS: tuple[Algorithm, ...] = ("flow_grpo", "diffusion_nft", "fdfo")


@pytest.fixture
def group(policy: Denoiser, conditions: Conditions) -> CandidateGroup:
    shape = policy.latent_shape(conditions)
    noise = torch.stack([normal(seed, *shape) for seed in ALL_SEEDS])
    sigmas = policy.sigmas(3, conditions)
    with torch.no_grad():
        states = sde.integrate(
            policy.velocity(conditions), noise, sigmas, 0.6, range(3), lambda n: step_noise(ALL_SEEDS, n, *shape)
        )
    return group_of(states, sigmas)


def update_of(
    policy: Denoiser,
    group: CandidateGroup,
    conditions: Conditions,
    config: ObjectiveConfig,
    advantages: np.ndarray = ADVANTAGES,
    at_once: int | None = None,
) -> GroupUpdate:
    work = GroupWork(None, None, advantages, anchors=(1, 3), steps=(0, 1, 2), on_policy=True)
    return UPDATES[config.algorithm](policy, group, conditions, work, config, RUN, at_once)


def gradient(policy: Denoiser, update: GroupUpdate, scale: float = 1.0) -> tuple[Tensor, dict[str, float]]:
    parameters = list(lora.parameters(policy.transformer).values())
    for parameter in parameters:
        parameter.grad = None
    statistics = Statistics()
    update.prepare(None, update.values, on_policy=True, again=False)
    update.backward(scale, Tensor.backward, statistics)
    assert not statistics.not_finite(*update.figures)
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]), merge([statistics.result()])


def expected_gradient(policy: Denoiser, objective: Tensor) -> Tensor:
    found = torch.autograd.grad(-objective, list(lora.parameters(policy.transformer).values()))
    return torch.cat([part.flatten() for part in found])


def weights_of(group: CandidateGroup, config: ObjectiveConfig, channels: int) -> Tensor:
    inside, outside = (
        1 / (tau**2 * count * channels)
        for tau, count in ((config.tau_edit, group.token_mask.sum()), (config.tau_base, (~group.token_mask).sum()))
    )
    return torch.tensor([[inside if masked else outside] * channels for masked in group.token_mask])


@pytest.mark.parametrize("algorithm", ARMS)
@pytest.mark.parametrize("at_once", [1, 3])
def test_trajectories_through_the_model_one_by_one_or_together_give_one_gradient(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions, algorithm: Algorithm, at_once: int
) -> None:
    config = ObjectiveConfig(algorithm=algorithm, reference_penalty=0.3)
    together, _ = gradient(policy, update_of(policy, group, conditions, config))
    apart, _ = gradient(policy, update_of(policy, group, conditions, config, at_once=at_once))
    torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-6)
    assert together.any()


@pytest.mark.parametrize("algorithm", ARMS)
def test_a_failed_candidate_is_out_of_the_loss_and_no_nan_reaches_the_gradient(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions, algorithm: Algorithm
) -> None:
    config = ObjectiveConfig(algorithm=algorithm)
    failed = np.array([0.5, np.nan, 0.5, -1.0])
    got, _ = gradient(policy, update_of(policy, group, conditions, config, failed))
    assert torch.isfinite(got).all()
    states = group.states.copy()
    states[1, 1:] += 5.0
    changed = CandidateGroup(**{**vars(group), "states": states})
    again, _ = gradient(policy, update_of(policy, changed, conditions, config, failed))
    torch.testing.assert_close(again, got, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("algorithm", ARMS)
def test_flipping_every_advantage_flips_the_gradient(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions, algorithm: Algorithm
) -> None:
    config = ObjectiveConfig(algorithm=algorithm)
    plus, _ = gradient(policy, update_of(policy, group, conditions, config))
    minus, _ = gradient(policy, update_of(policy, group, conditions, config, -ADVANTAGES))
    torch.testing.assert_close(plus, -minus, rtol=1e-3, atol=1e-7)


def test_on_policy_flow_grpo_is_the_score_weighted_by_advantages(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions
) -> None:
    got, statistics = gradient(policy, update_of(policy, group, conditions, ObjectiveConfig(algorithm="flow_grpo")))
    assert statistics["max_abs_log_ratio"] == statistics["kl"] == statistics["clip_fraction"] == 0.0
    velocity, sigmas = policy.velocity(conditions), torch.tensor(group.sigmas)
    states, objective = torch.tensor(group.states), torch.zeros(())
    for n in range(3):
        # The score of a Gaussian with respect to its mean, from the noise that was drawn.
        noise = step_noise(ALL_SEEDS, n, *states.shape[2:])
        mean = sde.mean(states[:, n], velocity(states[:, n], float(sigmas[n])), sigmas, n, 0.6)
        score = (mean * noise / sde.spread(sigmas, n, 0.6)).mean(dim=(1, 2))
        objective = objective + (torch.tensor(ADVANTAGES, dtype=torch.float32) * score).sum() / 4 / 3
    expected = expected_gradient(policy, objective)
    assert (got - expected).norm() / expected.norm() < 1e-3


def test_flow_grpos_old_means_are_those_under_the_weights_that_rolled_out(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions
) -> None:
    update = update_of(policy, group, conditions, ObjectiveConfig(algorithm="flow_grpo"))
    stored = update.prepare(None, update.values, on_policy=True, again=False)
    assert stored is not None
    torch.testing.assert_close(stored, update.values(), rtol=1e-4, atol=1e-5)
    weights = lora.state(policy.transformer)
    lora.load(policy.transformer, {name: 1.5 * tensor for name, tensor in weights.items()})
    later = update_of(policy, group, conditions, ObjectiveConfig(algorithm="flow_grpo"))
    statistics = Statistics()
    later.prepare(stored, later.values, on_policy=True, again=False)
    later.backward(1.0, Tensor.backward, statistics)
    assert merge([statistics.result()])["max_abs_log_ratio"] > 1e-6


@pytest.mark.parametrize("masked", [True, False])
def test_on_policy_nft_is_flow_matching_weighted_by_advantages(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions, masked: bool
) -> None:
    config = ObjectiveConfig(algorithm="diffusion_nft", nft=NftConfig(strength=0.5, masked=masked))
    got, _ = gradient(policy, update_of(policy, group, conditions, config))
    velocity, sigmas, final = policy.velocity(conditions), group.sigmas, torch.tensor(group.states[:, -1])
    weights = weights_of(group, config, final.shape[-1])
    if not masked:
        weights = torch.full_like(weights, 1 / weights.numel())
    objective = torch.zeros(())
    for n in range(3):
        noise = step_noise(ALL_SEEDS, n, *final.shape[1:])
        state = (1 - sigmas[n]) * final + sigmas[n] * noise
        error = ((velocity(state.float(), float(sigmas[n])) - (noise - final)).square() * weights).sum(dim=(1, 2))
        # d/dv of r |v+ - v|^2 + (1-r) |v- - v|^2 at v = v_old is that of b (2 r - 1) |v - target|^2.
        objective = objective - (0.5 * torch.tensor(ADVANTAGES / 5).float() * error).sum() / 4 / 3
    expected = expected_gradient(policy, objective)
    assert (got - expected).norm() / expected.norm() < 1e-3


def test_fdfo_pulls_both_sides_of_a_pair_along_its_difference(
    policy: Denoiser, group: CandidateGroup, conditions: Conditions
) -> None:
    config = ObjectiveConfig(algorithm="fdfo")
    got, _ = gradient(policy, update_of(policy, group, conditions, config))
    velocity, states = policy.velocity(conditions), torch.tensor(group.states)
    weights = weights_of(group, config, states.shape[-1])
    objective = torch.zeros(())
    for anchor in (1, 3):
        difference = states[anchor, -1] - states[0, -1]
        length = (difference.square() * weights).sum().sqrt()
        uphill = float(ADVANTAGES[anchor] - ADVANTAGES[0]) * difference / length
        for n in range(3):
            both = velocity(states[[0, anchor], n], float(group.sigmas[n]))
            objective = objective - (both * uphill * weights).sum() / (2 * 2) / 3
    expected = expected_gradient(policy, objective)
    assert (got - expected).norm() / expected.norm() < 1e-3


def test_in_a_window_only_its_stochastic_steps_are_trained() -> None:
    run = RunShape(0, "euler", 6, 4, 0, {}, SdeConfig(window=2, move_every=10))
    assert [tuple(run.window(version)) for version in (0, 9, 10, 49, 50)] == [(0, 1), (0, 1), (1, 2), (4, 5), (0, 1)]
    assert draw_steps(run, 12, "t", None, run.window(12)) == (1, 2)
    assert set(draw_steps(run, 12, "t", 1, run.window(12))) < {1, 2}
