"""What both forms of the policy promise: their scale, the base model inside `disabled`, nothing else that trains."""

import pytest
import torch
from torch import nn

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal
from tests.conftest import TINY, tiny_denoiser

Weights = dict[str, torch.Tensor]


def trained(denoiser: Denoiser, scale: float = 0.1) -> Weights:
    generator = torch.Generator().manual_seed(1)
    return {
        name: tensor + scale * torch.randn(tensor.shape, generator=generator)
        for name, tensor in lora.copied(denoiser.policy.weights()).items()
    }


def projections(denoiser: Denoiser) -> dict[str, nn.Linear]:
    names = {name.rsplit(".lora_", 1)[0] for name in denoiser.policy.weights()}
    return {name: denoiser.transformer.get_submodule(name) for name in sorted(names)}  # type: ignore[misc]


@pytest.mark.parametrize(("rank", "alpha"), [(2, 3.0), (4, 1.0)])
@pytest.mark.parametrize("policy", [AdapterPolicy, MergedPolicy])
@torch.no_grad()
def test_the_loras_product_acts_with_alpha_over_rank(
    policy: PolicyMaker, rank: int, alpha: float, conditions: Conditions
) -> None:
    denoiser = tiny_denoiser(TINY.model_copy(update={"lora": LoraSettings(rank=rank, alpha=alpha)}), policy=policy)
    by_hand = tiny_denoiser(policy=MergedPolicy)
    weights = trained(denoiser)
    assert {tensor.shape[0] for name, tensor in weights.items() if ".lora_A." in name} == {rank}
    denoiser.policy.load(weights)
    for name, module in projections(by_hand).items():
        module.weight += alpha / rank * weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
    x = normal(5, 1, *denoiser.latent_shape(conditions))
    expected = by_hand.velocity(conditions)(x, 0.5)
    torch.testing.assert_close(denoiser.velocity(conditions)(x, 0.5), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", [AdapterPolicy, MergedPolicy])
@torch.no_grad()
def test_the_policy_acts_again_after_an_error_inside_disabled(policy: PolicyMaker, conditions: Conditions) -> None:
    denoiser = tiny_denoiser(policy=policy)
    x = normal(5, 1, *denoiser.latent_shape(conditions))
    base = denoiser.velocity(conditions)(x, 0.5)
    denoiser.policy.load(trained(denoiser))
    acting = denoiser.velocity(conditions)(x, 0.5)
    with denoiser.policy.disabled():
        assert torch.equal(denoiser.velocity(conditions)(x, 0.5), base)
    with pytest.raises(InterruptedError), denoiser.policy.disabled():
        raise InterruptedError
    assert torch.equal(denoiser.velocity(conditions)(x, 0.5), acting)


def test_under_adapters_nothing_but_they_train_and_merged_nothing_does() -> None:
    adapters, merged = tiny_denoiser(policy=AdapterPolicy), tiny_denoiser(policy=MergedPolicy)
    train = {name for name, parameter in adapters.transformer.named_parameters() if parameter.requires_grad}
    assert len(train) == 44
    assert all(".lora_" in name for name in train)
    assert not any(parameter.requires_grad for parameter in merged.transformer.parameters())
    assert not any(weights.requires_grad for weights in merged.policy.weights().values())


def test_adapters_over_a_narrow_base_are_float32_and_begin_like_all_others() -> None:
    narrow = tiny_denoiser(dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in narrow.policy.weights().values()} == {torch.float32}
    assert narrow.policy.digest() == tiny_denoiser().policy.digest()


@torch.no_grad()
def test_a_projection_that_is_stored_in_units_is_merged_in_them() -> None:
    denoiser = tiny_denoiser(policy=MergedPolicy)
    weights, pristine = trained(denoiser), {}
    for name, module in projections(denoiser).items():
        module.scale = torch.linspace(0.5, 4.0, len(module.weight))[:, None]
        pristine[name] = module.weight.clone()
    denoiser.policy.load(weights)
    for name, module in projections(denoiser).items():
        change = 2.0 * weights[f"{name}.lora_B.weight"] @ weights[f"{name}.lora_A.weight"]
        torch.testing.assert_close((module.weight - pristine[name]) * module.scale, change, rtol=1e-3, atol=1e-5)
    assert isinstance(denoiser.policy, MergedPolicy)
    assert denoiser.policy.arrived() == pytest.approx(1.0, abs=1e-4)


@torch.no_grad()
def test_what_arrived_is_the_share_along_the_change_over_all_projections() -> None:
    denoiser = tiny_denoiser(policy=MergedPolicy)
    policy = denoiser.policy
    assert isinstance(policy, MergedPolicy)
    assert policy.arrived() != policy.arrived()  # NaN: no change, no share
    pristine = {name: module.weight.clone() for name, module in projections(denoiser).items()}
    policy.load(trained(denoiser))
    assert policy.arrived() == pytest.approx(1.0, abs=1e-4)
    changes = {name: module.weight - pristine[name] for name, module in projections(denoiser).items()}
    first = next(iter(changes))
    for name, module in projections(denoiser).items():
        module.weight.copy_(pristine[name] + (0.5 if name == first else -0.25) * changes[name])
    squares = {name: float(change.double().square().sum()) for name, change in changes.items()}
    expected = (0.75 * squares[first] - 0.25 * sum(squares.values())) / sum(squares.values())
    assert policy.arrived() == pytest.approx(expected, rel=1e-3)


@torch.no_grad()
def test_rounding_is_drawn_anew_for_every_projection_and_every_version() -> None:
    denoiser = tiny_denoiser(policy=MergedPolicy, dtype=torch.bfloat16)
    (first, one), (second, other) = list(projections(denoiser).items())[:2]
    assert one.weight.shape == other.weight.shape
    weights = trained(denoiser, 1e-3)
    for part in "AB":
        weights[f"{second}.lora_{part}.weight"] = weights[f"{first}.lora_{part}.weight"]
    other.weight.copy_(one.weight)
    adapted = lora.adapted(denoiser.body.architecture.projections, TINY.lora.targets)
    policy = MergedPolicy(denoiser.transformer, adapted, TINY.lora, 0)
    policy.load(weights)
    before = one.weight.clone()
    assert not torch.equal(before, other.weight)
    last = list(weights)[-1]
    policy.load(weights | {last: 2 * weights[last]})
    assert not torch.equal(one.weight, before)
