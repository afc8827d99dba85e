"""The update of one group, with plain autograd in DeepSpeed's place."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from learner.statistics import Figures, Statistics, merge
from learner.updates import SurrogateUpdate
from learner.work import GroupWork, RunShape, spread
from rc_grpo.algorithm import solver
from rc_grpo.algorithm.objective import on_policy_pull
from rc_grpo.config import ObjectiveConfig
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import CandidateGroup, Conditions
from rc_grpo.seeds import normal
from tests.unit.learner.conftest import group_of

ADVANTAGES = np.array([0.4, -1.2, 1.5, -0.7])
ANCHORS = (1, 3)


def work_for(advantages: np.ndarray = ADVANTAGES, steps: tuple[int, ...] = (0, 1, 2), **changes: object) -> GroupWork:
    values = {"group": None, "conditions": None, "advantages": advantages, "anchors": ANCHORS, "steps": steps}
    return GroupWork(**(values | {"on_policy": True} | changes))  # type: ignore[arg-type]


def run_by(method: str) -> RunShape:
    return RunShape(0, method, 3, 4, 0, {})  # type: ignore[arg-type]


def make_group(policy: Denoiser, conditions: Conditions, steps: int = 3, method: str = "euler") -> CandidateGroup:
    tokens, channels = policy.latent_shape(conditions)
    reference = normal(10, tokens, channels)
    noise = torch.stack([reference] + [0.9 * reference + 0.4 * normal(10 + i, tokens, channels) for i in (1, 2, 3)])
    sigmas = policy.sigmas(steps, conditions)
    with torch.no_grad():
        states = solver.integrate(policy.velocity(conditions), noise, sigmas, method)  # type: ignore[arg-type]
    return group_of(states, sigmas)


def gradients(
    policy: Denoiser,
    group: CandidateGroup,
    conditions: Conditions,
    config: ObjectiveConfig,
    work: GroupWork,
    old: Callable[[torch.Tensor], torch.Tensor] = lambda path: path,
    method: str = "euler",
    scale: float = 1.0,
    anchors_per_pass: int | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    parameters = list(lora.parameters(policy.transformer).values())
    for parameter in parameters:
        parameter.grad = None
    update = SurrogateUpdate(policy, group, conditions, work, config, run_by(method), anchors_per_pass)  # type: ignore[arg-type]
    statistics = Statistics()
    update.path, update.old = update.stored, old(update.stored)
    update.backward(scale, torch.Tensor.backward, statistics)
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]), merge([statistics.result()])


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
def test_on_policy_the_gradient_is_the_closed_form_pull_through_the_whole_chain(
    policy: Denoiser, conditions: Conditions, method: str
) -> None:
    group = make_group(policy, conditions, method=method)
    config = ObjectiveConfig()
    got, _ = gradients(policy, group, conditions, config, work_for(), method=method)

    update = SurrogateUpdate(policy, group, conditions, work_for(), config, run_by(method))  # type: ignore[arg-type]
    parameters = list(lora.parameters(policy.transformer).values())
    candidates = torch.tensor(group.states).transpose(0, 1)
    path = solver.integrate(policy.velocity(conditions), update.stored[0], torch.tensor(group.sigmas), method)  # type: ignore[arg-type]
    objective = torch.zeros(())
    for t in (1, 2, 3):
        pull = on_policy_pull(candidates[t], torch.tensor(ADVANTAGES), update._weights)
        objective = objective + (path[t] * pull).sum() / (len(ANCHORS) * 3)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(-objective, parameters)])
    assert (got - expected).norm() / expected.norm() < 2e-4


def test_the_ratio_is_exactly_one_on_policy_in_both_regions(policy: Denoiser, conditions: Conditions) -> None:
    _, statistics = gradients(policy, make_group(policy, conditions), conditions, ObjectiveConfig(), work_for())
    assert statistics["max_abs_log_ratio"] == 0.0
    assert statistics["max_abs_log_ratio_edit"] == statistics["max_abs_log_ratio_background"] == 0.0
    assert statistics["kl"] == 0.0
    assert statistics["clip_fraction"] == 0.0


def test_learner_and_rollout_agree_on_every_step_and_other_weights_are_seen_not_to(
    policy: Denoiser, conditions: Conditions
) -> None:
    group = make_group(policy, conditions)
    _, same = gradients(policy, group, conditions, ObjectiveConfig(), work_for())
    assert same["recomputed_max_deviation"] < 1e-5
    weights = lora.state(policy.transformer)
    lora.load(policy.transformer, {name: 1.5 * tensor for name, tensor in weights.items()})
    _, other = gradients(policy, group, conditions, ObjectiveConfig(), work_for())
    assert other["recomputed_max_deviation"] > 100 * same["recomputed_max_deviation"]
    assert other["max_abs_log_ratio"] == 0.0  # stop-gradient: only the recomputation tells


def test_step_and_chain_are_the_same_for_a_single_step(policy: Denoiser, conditions: Conditions) -> None:
    group = make_group(policy, conditions, steps=1)
    chain, _ = gradients(policy, group, conditions, ObjectiveConfig(), work_for(steps=(0,)))
    step, _ = gradients(policy, group, conditions, ObjectiveConfig(anchor_path="step"), work_for(steps=(0,)))
    torch.testing.assert_close(chain, step, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("method", ["euler", "heun", "dpmpp_2m"])
def test_on_policy_paths_have_the_rolled_out_values(policy: Denoiser, conditions: Conditions, method: str) -> None:
    group = make_group(policy, conditions, steps=4, method=method)
    work = work_for(steps=(0, 1, 2, 3))
    for config in (ObjectiveConfig(), ObjectiveConfig(anchor_path="step")):
        update = SurrogateUpdate(policy, group, conditions, work, config, run_by(method))  # type: ignore[arg-type]
        torch.testing.assert_close(update.values(), update.stored, rtol=1e-4, atol=1e-5)


def test_flipping_every_advantage_flips_the_gradient(policy: Denoiser, conditions: Conditions) -> None:
    group = make_group(policy, conditions)
    plus, _ = gradients(policy, group, conditions, ObjectiveConfig(), work_for())
    minus, _ = gradients(policy, group, conditions, ObjectiveConfig(), work_for(-ADVANTAGES))
    torch.testing.assert_close(plus, -minus, rtol=1e-4, atol=1e-9)


def test_work_without_weight_adds_nothing_but_runs_as_many_backward_passes(
    policy: Denoiser, conditions: Conditions
) -> None:
    group = make_group(policy, conditions)
    calls: list[torch.Tensor] = []

    def backward(scalar: torch.Tensor) -> None:
        calls.append(scalar)
        scalar.backward()

    update = SurrogateUpdate(policy, group, conditions, work_for(), ObjectiveConfig(), run_by("euler"))
    update.path, update.old = update.stored, update.stored
    update.backward(0.0, backward, Statistics())
    assert len(calls) == 3
    assert all(not parameter.grad.any() for parameter in lora.parameters(policy.transformer).values())


def test_a_failed_candidate_is_out_of_the_loss_and_no_nan_reaches_the_gradient(
    policy: Denoiser, conditions: Conditions
) -> None:
    group = make_group(policy, conditions)
    got, _ = gradients(policy, group, conditions, ObjectiveConfig(), work_for(np.array([0.5, np.nan, 0.5, -1.0])))
    assert torch.isfinite(got).all()
    assert got.any()


def test_a_stale_group_is_measured_against_the_path_that_was_rolled_out(
    policy: Denoiser, conditions: Conditions
) -> None:
    group = make_group(policy, conditions)
    weights = lora.state(policy.transformer)
    lora.load(policy.transformer, {name: 1.2 * tensor for name, tensor in weights.items()})
    update = SurrogateUpdate(
        policy, group, conditions, work_for(on_policy=False), ObjectiveConfig(clip=0.2), run_by("euler")
    )
    statistics = Statistics()
    update.path, update.old = update.values(), update.stored
    update.backward(1.0, torch.Tensor.backward, statistics)
    result = merge([statistics.result()])
    assert result["max_abs_log_ratio"] > 0
    assert result["recomputed_max_deviation"] < 1e-5


def test_the_reference_penalty_pulls_towards_the_base_model(policy: Denoiser, conditions: Conditions) -> None:
    group = make_group(policy, conditions)
    config = ObjectiveConfig(reference_penalty=10.0)
    parameters = lora.parameters(policy.transformer)

    def distance() -> float:
        x = torch.tensor(group.states[:, 0])
        with torch.no_grad():
            value = policy.velocity(conditions)(x, 1.0)
            with lora.disabled(policy.transformer):
                return float((value - policy.velocity(conditions)(x, 1.0)).square().mean())

    before = distance()
    for _ in range(20):
        gradients(policy, group, conditions, config, work_for(np.zeros(4)))
        with torch.no_grad():
            for parameter in parameters.values():
                parameter -= 1.0 * parameter.grad
    assert distance() < 0.9 * before


@pytest.mark.parametrize("path", ["chain", "step"])
def test_anchors_through_the_model_one_by_one_or_together_give_one_gradient(
    policy: Denoiser, conditions: Conditions, path: str
) -> None:
    group = make_group(policy, conditions)
    config = ObjectiveConfig(anchor_path=path, reference_penalty=0.3)  # type: ignore[arg-type]
    work = work_for(anchors=(1, 2, 3))
    together, _ = gradients(policy, group, conditions, config, work)
    for at_once in (1, 2):
        apart, statistics = gradients(policy, group, conditions, config, work, anchors_per_pass=at_once)
        torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-7)
        assert statistics["recomputed_max_deviation"] < 1e-5


def test_a_group_without_its_trajectory_is_refused(policy: Denoiser, conditions: Conditions) -> None:
    group = make_group(policy, conditions)
    bare = CandidateGroup(**{**vars(group), "states": None})
    with pytest.raises(ValueError, match="without its trajectory"):
        SurrogateUpdate(policy, bare, conditions, work_for(), ObjectiveConfig(), run_by("euler"))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("path", ["chain", "step"])
def test_however_many_ranks_share_groups_that_do_not_come_out_even_their_gradients_sum_to_the_same(
    policy: Denoiser, conditions: Conditions, path: str, ranks: int
) -> None:
    group = make_group(policy, conditions)
    config = ObjectiveConfig(anchor_path=path, reference_penalty=0.3, beta=0.1)  # type: ignore[arg-type]
    work = [work_for(anchors=(1, 2, 3)), work_for(ADVANTAGES[::-1].copy(), anchors=(1, 2, 3))]
    whole = sum(gradients(policy, group, conditions, config, item)[0] for item in work)
    shares = spread(work, ranks, by_chain=True)
    dealt = sum(
        gradients(policy, group, conditions, config, item, scale=item.weight)[0] for share in shares for item in share
    )
    torch.testing.assert_close(dealt, whole, rtol=1e-5, atol=1e-8)


def test_statistics_of_ranks_merge_by_their_kind() -> None:
    ranks = [
        Figures({"max_a": 1.0}, {"b": 1.0, "max_of_b": 4.0}),
        Figures({"max_a": 3.0}, {"b": 2.0}),
        Figures({}, {"c": 5.0}),
    ]
    assert merge(ranks) == {"max_a": 3.0, "b": 1.5, "max_of_b": 4.0, "c": 5.0}


def test_a_mean_is_a_mean_whatever_its_name() -> None:
    statistics = Statistics()
    for value in (1.0, 3.0):
        statistics.mean("max_in_its_name", torch.tensor(value))
        statistics.maximum("peak", torch.tensor(value))
    assert merge([statistics.result(), Figures({"peak": 7.0}, {"max_in_its_name": 4.0})]) == {
        "max_in_its_name": 3.0,
        "peak": 7.0,
    }


def test_figures_keep_their_kind_under_a_prefix_and_beside_others() -> None:
    both = Figures({"a": 1.0}, {"b": 2.0}).under("first_step") | Figures({}, {"seconds": 3.0})
    assert both == Figures({"first_step/a": 1.0}, {"first_step/b": 2.0, "seconds": 3.0})
