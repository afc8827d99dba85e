"""LoRA merged into the weights is the policy that the adapters are."""

import numpy as np
import pytest
import torch

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.messages import Conditions, PolicyVersion, VersionMismatchError
from rc_grpo.seeds import normal
from tests.conftest import TINY, tiny_denoiser

Weights = dict[str, torch.Tensor]


@pytest.fixture
def merged() -> Denoiser:
    return tiny_denoiser(policy=MergedPolicy)


@pytest.fixture
def trained(denoiser: Denoiser) -> Weights:
    torch.manual_seed(1)
    return {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in lora.state(denoiser.transformer).items()}


def adopt(denoiser: Denoiser, weights: Weights, number: int = 1) -> float:
    version = PolicyVersion(number, lora.digest(weights), lora.count_modules(weights), lora.is_identity(weights))
    data = np.frombuffer(lora.serialise(weights), dtype=np.uint8)
    return denoiser.adopt(version, data, worker="w").canary_shift


def base_weights(denoiser: Denoiser) -> Weights:
    return {name: tensor.clone() for name, tensor in denoiser.transformer.state_dict().items()}


def test_both_forms_of_the_policy_begin_with_the_same_weights(denoiser: Denoiser, merged: Denoiser) -> None:
    assert lora.digest(merged.policy.weights()) == lora.digest(denoiser.policy.weights())
    assert merged.policy.modules == denoiser.policy.modules == 22
    assert list(merged.policy.weights()) == list(denoiser.policy.weights())


@torch.no_grad()
def test_merged_and_adapters_are_one_velocity(
    denoiser: Denoiser, merged: Denoiser, trained: Weights, conditions: Conditions
) -> None:
    x = normal(5, 2, *denoiser.latent_shape(conditions))
    base = merged.velocity(conditions)(x, 0.5)
    for policy in (denoiser, merged):
        assert adopt(policy, trained) > 0
    with_adapters, with_merged = (policy.velocity(conditions)(x, 0.5) for policy in (denoiser, merged))
    torch.testing.assert_close(with_merged, with_adapters, rtol=1e-4, atol=1e-5)
    assert (with_merged - base).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_from_a_to_b_to_a_restores_every_bit_and_the_identity_is_the_base(
    trained: Weights, dtype: torch.dtype
) -> None:
    merged = tiny_denoiser(policy=MergedPolicy, dtype=dtype)
    pristine, first = base_weights(merged), dict(lora.copied(merged.policy.weights()))
    adopt(merged, trained)
    after_a = base_weights(merged)
    adopt(merged, {name: 2 * tensor for name, tensor in trained.items()}, 2)
    assert any(not torch.equal(tensor, after_a[name]) for name, tensor in base_weights(merged).items())
    adopt(merged, trained, 3)
    assert all(torch.equal(tensor, after_a[name]) for name, tensor in base_weights(merged).items())
    assert adopt(merged, first, 4) == 0
    assert all(torch.equal(tensor, pristine[name]) for name, tensor in base_weights(merged).items())


def test_disabled_is_the_base_model_and_comes_back(merged: Denoiser, trained: Weights) -> None:
    pristine = base_weights(merged)
    adopt(merged, trained)
    after = base_weights(merged)
    with merged.policy.disabled():
        assert all(torch.equal(tensor, pristine[name]) for name, tensor in base_weights(merged).items())
    assert all(torch.equal(tensor, after[name]) for name, tensor in base_weights(merged).items())


def test_weights_stay_where_they_are_in_memory(merged: Denoiser, trained: Weights) -> None:
    def places() -> list[int]:
        return [parameter.data_ptr() for parameter in merged.transformer.parameters()]

    before = places()
    adopt(merged, trained)
    assert places() == before


def test_an_update_smaller_than_the_grid_still_arrives(trained: Weights) -> None:
    """In bfloat16 a hundredth of a weight's spacing would be lost to rounding to the nearest, all of it."""
    merged = tiny_denoiser(policy=MergedPolicy, dtype=torch.bfloat16)
    small = {name: tensor * (1e-3 if ".lora_B." in name else 1) for name, tensor in trained.items()}
    adopt(merged, small)
    policy = merged.policy
    assert isinstance(policy, MergedPolicy)
    assert policy.arrived() == pytest.approx(1, abs=0.5)


def test_weights_that_do_not_fit_are_refused_and_nothing_is_merged(merged: Denoiser, trained: Weights) -> None:
    pristine = base_weights(merged)
    name = next(iter(trained))
    with pytest.raises(VersionMismatchError, match="1 of 44 missing"):
        merged.policy.load({key: value for key, value in trained.items() if key != name})
    assert all(torch.equal(tensor, pristine[key]) for key, tensor in base_weights(merged).items())


def test_targets_that_the_architecture_does_not_have_are_named() -> None:
    with pytest.raises(ValueError, match=r"editor\.lora\.targets"):
        tiny_denoiser(TINY.model_copy(update={"lora": LoraSettings(targets=("attn.to_qkv",))}), policy=MergedPolicy)
