"""The update's numbers against the same ones by hand: a velocity of one weight, states made up, plain softmaxes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.statistics import Statistics, merge
from learner.updates import SurrogateUpdate
from learner.work import GroupWork, RunShape
from rc_grpo.config import ObjectiveConfig, Solver
from rc_grpo.messages import CandidateGroup, PolicyVersion, RolloutSeeds
from tests.unit.growing import Field

SIGMAS = np.array([1.0, 0.6, 0.25, 0.0])
MASK = np.array([True, True, False, False, False])
ADVANTAGES = np.array([0.4, -1.2, 1.5, -0.7])
ANCHORS = (1, 3)
BASE = 0.1
OPTIONS: dict[str, Any] = {"clip": 0.05, "tau_edit": 0.5, "tau_base": 2.0, "power": 1}


class OneWeight:
    """A denoiser as far as an update goes: its velocity is ``theta x`` with the policy and ``BASE x`` without."""

    device = torch.device("cpu")

    def __init__(self, theta: float = 0.3) -> None:
        self.theta = torch.tensor(theta, requires_grad=True)
        self.policy = self
        self.acting = True
        self.asked: list[tuple[bool, int, bool]] = []

    def velocity(self, conditions: object) -> Field:
        assert conditions == "conditions"

        def field(x: Tensor, sigma: float) -> Tensor:
            self.asked.append((self.acting, len(x), torch.is_grad_enabled()))
            return (self.theta if self.acting else BASE) * x

        return Field(field)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self.acting = False
        yield
        self.acting = True


class Apart(OneWeight):
    """Its velocity is ``theta`` everywhere with the policy and ``BASE`` without."""

    def velocity(self, conditions: object) -> Field:
        return Field(lambda x, sigma: (self.theta if self.acting else BASE) + 0 * x)


def made_up(seed: int, *shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=shape), dtype=torch.float32)


STATES = made_up(0, 4, 4, 5, 2)
OLD = STATES[list(ANCHORS)].transpose(0, 1) + 0.3 * made_up(1, 4, 2, 5, 2)
PATH = STATES[list(ANCHORS)].transpose(0, 1) + 0.3 * made_up(2, 4, 2, 5, 2)


def an_update(
    denoiser: OneWeight,
    config: ObjectiveConfig,
    steps: tuple[int, ...] = (0, 1, 2),
    advantages: np.ndarray = ADVANTAGES,
    anchors_per_pass: int | None = None,
    anchors: tuple[int, ...] = ANCHORS,
    method: Solver = "euler",
) -> SurrogateUpdate:
    group = CandidateGroup(
        task_id="t",
        seeds=RolloutSeeds(0, (1, 2, 3)),
        policy=PolicyVersion(1, "d", 1, is_identity=False),
        sigmas=SIGMAS,
        token_mask=MASK,
        images=np.zeros((4, 16, 16, 3), dtype=np.uint8),
        background_drift=np.zeros(4, dtype=np.float32),
        states=STATES.numpy(),
    )
    work = GroupWork(None, None, advantages, anchors, steps, on_policy=False)
    return SurrogateUpdate(
        denoiser, group, "conditions", work, config, RunShape(0, method, 3, 4, 0, {}), anchors_per_pass
    )  # type: ignore[arg-type]


def euler(x: Tensor, n: int, theta: float | Tensor) -> Tensor:
    return x * (1 + (SIGMAS[n + 1] - SIGMAS[n]) * theta)


def weights_by_hand(config: ObjectiveConfig, regions: tuple[str, ...] = ("edit", "background")) -> Tensor:
    edit = 1 / (config.tau_edit**config.power * 2 * 2) if "edit" in regions else 0.0
    background = 1 / (config.tau_base**config.power * 3 * 2) if "background" in regions else 0.0
    return torch.tensor([[edit if inside else background] * 2 for inside in MASK], dtype=torch.float64)


def log_policy(candidates: Tensor, anchors: Tensor, weights: Tensor) -> Tensor:
    differences = candidates.double()[None] - anchors.double()[:, None]
    return torch.log_softmax(-(differences.square() * weights).sum(dim=(2, 3)) / 2, dim=1)


def log_ratio(state: int, anchors: Tensor, old: Tensor, weights: Tensor) -> Tensor:
    return log_policy(STATES[:, state], anchors, weights) - log_policy(STATES[:, state], old, weights)


def stopped(ratio: Tensor, advantages: Tensor, clip: float) -> float:
    past = ((advantages > 0) & (ratio > 1 + clip)) | ((advantages < 0) & (ratio < 1 - clip))
    return float(past[:, ~advantages.isnan()].double().mean())


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize(("path", "old"), [(PATH, OLD), (OLD, PATH)], ids=["there", "back"])
@pytest.mark.parametrize("steps", [(0, 1, 2), (0, 2)])
def test_the_ratios_diagnostics_are_those_of_plain_softmaxes(
    power: int, failed: bool, path: Tensor, old: Tensor, steps: tuple[int, ...]
) -> None:
    """There and back: the largest ratio of one is the smallest of the other, and as large a deviation."""
    config = ObjectiveConfig(**(OPTIONS | {"power": power}))
    advantages = torch.tensor([np.nan, -1.2, 1.5, -0.7] if failed else ADVANTAGES)
    statistics = Statistics()
    update = an_update(OneWeight(), config, steps, advantages.numpy())
    update.path, update.old = path, old
    update.backward(0.5, Tensor.backward, statistics)
    got = merge([statistics.result()])

    valid, states = ~advantages.isnan(), [n + 1 for n in steps]
    for name, regions in {"": ("edit", "background"), "_edit": ("edit",), "_background": ("background",)}.items():
        weights = weights_by_hand(config, regions)
        logs = [log_ratio(t, path[t], old[t], weights) for t in states]
        assert got[f"max_abs_log_ratio{name}"] == pytest.approx(max(float(log.abs().max()) for log in logs), rel=1e-4)
        clipped = np.mean([stopped(log.exp(), advantages, config.clip) for log in logs])
        assert got[f"clip_fraction{name}"] == pytest.approx(clipped, rel=1e-5)
    weights, objectives, divergences = weights_by_hand(config), [], []
    for t in states:
        log = log_ratio(t, path[t], old[t], weights)
        ratio, bounded = log.exp(), log.exp().clamp(1 - config.clip, 1 + config.clip)
        objectives.append(torch.minimum(advantages * ratio, advantages * bounded)[:, valid].mean())
        divergences.append(-(log_policy(STATES[:, t], old[t], weights).exp() * log).sum(dim=1).mean())
    assert got["objective"] == pytest.approx(float(np.mean(objectives)), rel=1e-4)
    assert got["kl"] == pytest.approx(float(np.mean(divergences)), rel=1e-4)


@pytest.mark.parametrize("offset", [0.25, -0.25])
@pytest.mark.parametrize("anchor_path", ["chain", "step"])
def test_how_far_a_recomputed_step_lands_is_measured_in_both_directions(anchor_path: str, offset: float) -> None:
    config = ObjectiveConfig(anchor_path=anchor_path, **OPTIONS)  # type: ignore[arg-type]
    update, statistics = an_update(OneWeight(), config), Statistics()
    path = update.values()
    path[3, 1, 4, 0] += offset
    update.path, update.old = path, OLD
    update.backward(1.0, Tensor.backward, statistics)
    got = merge([statistics.result()])
    recomputed = euler(path[2] if anchor_path == "chain" else STATES[list(ANCHORS), 2], 2, 0.3)
    log = log_ratio(3, recomputed, path[3], weights_by_hand(config))
    assert got["recomputed_max_deviation"] == pytest.approx(0.25, rel=1e-5)
    assert got["recomputed_max_abs_log_ratio"] == pytest.approx(float(log.abs().max()), rel=1e-3)


def expected_gradient(config: ObjectiveConfig, path: Tensor, steps: tuple[int, ...], scale: float) -> float:
    """Plain autograd in float64 through ``-scale (J - beta KL) + scale penalty``, whatever leads to the states."""
    theta = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    weights, advantages = weights_by_hand(config), torch.tensor(ADVANTAGES)
    chain = [path[0].double()]
    for n in range(3):
        chain.append(euler(chain[n], n, theta))
    cost = torch.zeros((), dtype=torch.float64)
    for n in steps:
        before = chain[n] if config.anchor_path == "chain" else STATES[list(ANCHORS), n].double()
        after = chain[n + 1] if config.anchor_path == "chain" else euler(before, n, theta)
        log = log_ratio(n + 1, after, OLD[n + 1], weights)
        ratio, bounded = log.exp(), log.exp().clamp(1 - config.clip, 1 + config.clip)
        gain = torch.minimum(advantages * ratio, advantages * bounded).mean()
        divergence = -(log_policy(STATES[:, n + 1], OLD[n + 1], weights).exp() * log).sum(dim=1).mean()
        cost = cost - gain + config.beta * divergence
    asked = chain[:3] if config.anchor_path == "chain" else [STATES[list(ANCHORS), n].double() for n in steps]
    distances = torch.stack([(theta * x - BASE * x.detach()).square().mean() for x in asked])
    cost = cost / len(steps) + config.reference_penalty * distances.mean()
    (gradient,) = torch.autograd.grad(scale * cost, theta)
    return float(gradient)


@pytest.mark.parametrize("anchors_per_pass", [None, 1])
@pytest.mark.parametrize("options", [{}, {"beta": 0.7}, {"reference_penalty": 0.2}, {"clip": 0.9}])
@pytest.mark.parametrize(
    ("anchor_path", "steps"), [(path, steps) for path in ("chain", "step") for steps in ((0, 1, 2), (0, 2))]
)
def test_the_gradient_is_that_of_the_whole_objective_written_down(
    anchor_path: str, steps: tuple[int, ...], options: dict[str, float], anchors_per_pass: int | None
) -> None:
    config = ObjectiveConfig(**(OPTIONS | {"anchor_path": anchor_path} | options))
    denoiser = OneWeight()
    update = an_update(denoiser, config, steps, anchors_per_pass=anchors_per_pass)
    path = update.values()
    update.path, update.old = path, OLD
    update.backward(0.25, Tensor.backward, Statistics())
    assert denoiser.theta.grad is not None
    assert float(denoiser.theta.grad) == pytest.approx(expected_gradient(config, path, steps, 0.25), rel=1e-3)


def test_anchors_are_the_candidates_that_the_work_names() -> None:
    update = an_update(OneWeight(), ObjectiveConfig(**OPTIONS), anchors=(3, 2))
    assert update.stored.equal(STATES[[3, 2]].transpose(0, 1))


def test_the_chain_is_integrated_from_the_anchors_noise_under_the_weights_now_in_the_model() -> None:
    path = an_update(OneWeight(0.8), ObjectiveConfig(**OPTIONS)).values()
    expected = [STATES[list(ANCHORS), 0]]
    for n in range(3):
        expected.append(euler(expected[n], n, 0.8))
    torch.testing.assert_close(path, torch.stack(expected))
    assert not path.requires_grad


def test_a_step_path_moves_the_trained_states_alone_each_from_the_stored_one_before_it() -> None:
    update = an_update(OneWeight(0.8), ObjectiveConfig(anchor_path="step", **OPTIONS), steps=(0, 2))
    path, stored = update.values(), STATES[list(ANCHORS)].transpose(0, 1)
    torch.testing.assert_close(
        path, torch.stack([stored[0], euler(stored[0], 0, 0.8), stored[2], euler(stored[2], 2, 0.8)])
    )
    assert update.stored.equal(stored)


@pytest.mark.parametrize(("at_once", "batches"), [(None, [3, 3, 3]), (2, [2, 2, 2, 1, 1, 1]), (1, [1] * 9)])
def test_so_many_anchors_go_through_the_model_together_and_the_base_model_is_asked_once_for_its_norm(
    at_once: int | None, batches: list[int]
) -> None:
    denoiser, scalars = OneWeight(), []

    def backward(scalar: Tensor) -> None:
        scalars.append(scalar)
        scalar.backward()

    update = an_update(denoiser, ObjectiveConfig(**OPTIONS), anchors=(1, 2, 3), anchors_per_pass=at_once)
    update.path, update.old = update.stored, update.stored
    update.backward(1.0, backward, Statistics())
    assert [batch for acting, batch, _ in denoiser.asked if acting] == batches
    assert len(scalars) == len(batches)
    assert [(batch, gradient) for acting, batch, gradient in denoiser.asked if not acting] == [(batches[0], False)]


@pytest.mark.parametrize("anchor_path", ["chain", "step"])
def test_the_norms_that_are_logged_are_those_of_the_policy_over_the_base(anchor_path: str) -> None:
    update = an_update(OneWeight(-0.3), ObjectiveConfig(**(OPTIONS | {"anchor_path": anchor_path})))
    statistics = Statistics()
    update.backward(1.0, Tensor.backward, statistics)
    found = statistics.result().means
    assert found["velocity_norm_edit"] == pytest.approx(3.0, rel=1e-5)
    assert found["velocity_norm_background"] == pytest.approx(3.0, rel=1e-5)


def test_the_penalty_on_inflated_norms_is_their_hinge_and_costs_a_smaller_norm_nothing() -> None:
    for theta, slope in ((0.3, 2 * (3 - 1) / BASE), (0.05, 0.0)):
        denoiser = OneWeight(theta)
        options = OPTIONS | {"anchor_path": "step", "norm_penalty": 0.7}
        an_update(denoiser, ObjectiveConfig(**options), advantages=np.zeros(4)).backward(
            1.0, Tensor.backward, Statistics()
        )
        # At every state |v| / |v_base| is theta / BASE, in both regions: the penalty is (theta / BASE - 1)^2.
        assert float(denoiser.theta.grad) == pytest.approx(0.7 * slope, rel=1e-4, abs=1e-7)  # type: ignore[arg-type]


def test_a_penalty_asks_the_base_model_without_gradients() -> None:
    denoiser = OneWeight()
    update = an_update(denoiser, ObjectiveConfig(reference_penalty=0.1, **OPTIONS))
    update.path, update.old = PATH, OLD
    update.backward(1.0, Tensor.backward, Statistics())
    assert [with_gradients for acting, _, with_gradients in denoiser.asked if not acting] == [False] * 3
    assert [with_gradients for acting, _, with_gradients in denoiser.asked if acting] == [True] * 3


@pytest.mark.parametrize("anchor_path", ["chain", "step"])
@pytest.mark.parametrize("steps", [(0, 1, 2), (1, 2)])
@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
def test_the_penalty_of_two_models_that_differ_by_as_much_everywhere_is_that_under_every_solver(
    method: Solver, steps: tuple[int, ...], anchor_path: str
) -> None:
    """However often a solver asks the model: with a velocity of one number the squared distance is that of the two."""
    denoiser, scalars = Apart(), []

    def backward(scalar: Tensor) -> None:
        scalars.append(float(scalar.detach()))
        scalar.backward()

    config = ObjectiveConfig(**(OPTIONS | {"anchor_path": anchor_path, "reference_penalty": 3.0}))
    update = an_update(denoiser, config, steps, np.zeros(4), method=method)
    path = update.values()
    update.path, update.old = path, path
    update.backward(0.25, backward, Statistics())
    assert sum(scalars) == pytest.approx(0.25 * 3.0 * (0.3 - BASE) ** 2, rel=1e-5)


def test_the_numbers_of_several_ranks_are_one_ranks_over_all_their_groups() -> None:
    config, together, apart = ObjectiveConfig(**OPTIONS), Statistics(), []
    for path, old in ((PATH, OLD), (OLD, PATH), (PATH, PATH)):
        of_rank = Statistics()
        for statistics in (of_rank, together):
            update = an_update(OneWeight(), config)
            update.path, update.old = path, old
            update.backward(1.0, Tensor.backward, statistics)
        apart.append(of_rank.result())
    assert merge(apart) == pytest.approx(merge([together.result()]), rel=1e-5)
