import numpy as np
import pytest
import torch
from diffusers import FluxTransformer2DModel

from rc_grpo.config import ATTENTION_TARGETS, EditorConfig, LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.families.flux_kontext.architecture import of_config
from rc_grpo.editor.families.flux_kontext.transformer import KontextBody
from rc_grpo.messages import Conditions, PolicyVersion, VersionMismatchError
from rc_grpo.seeds import normal
from tests.conftest import TINY, tiny_denoiser


def version_of(weights: dict[str, torch.Tensor], number: int = 1, **changes: object) -> PolicyVersion:
    values = {
        "number": number,
        "digest": lora.digest(weights),
        "modules": lora.count_modules(weights),
        "is_identity": lora.is_identity(weights),
    }
    return PolicyVersion(**(values | changes))  # type: ignore[arg-type]


def packed(weights: dict[str, torch.Tensor]) -> np.ndarray:
    return np.frombuffer(lora.serialise(weights), dtype=np.uint8)


@pytest.fixture
def trained(denoiser: Denoiser) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: tensor + 0.1 * torch.randn_like(tensor) for name, tensor in lora.state(denoiser.transformer).items()}


def test_the_module_count_of_full_size_flux_is_266() -> None:
    with torch.device("meta"):
        flux = FluxTransformer2DModel(guidance_embeds=True)
    assert len(lora.adapted(of_config(flux.config, token=16).projections, ATTENTION_TARGETS)) == 266


def test_a_target_that_matches_too_little_is_an_error() -> None:
    config = TINY.model_copy(update={"lora": LoraSettings(rank=4, alpha=8, targets=("attn.to_q", "attn.to_nowhere"))})
    with pytest.raises(ValueError, match=r"names 'attn\.to_nowhere', which is none of this editor's projections"):
        tiny_denoiser(config)


def test_version_zero_is_the_base_model_and_the_same_on_every_worker() -> None:
    first, second = tiny_denoiser(), tiny_denoiser()
    weights = lora.state(first.transformer)
    assert lora.digest(weights) == lora.digest(lora.state(second.transformer))
    assert lora.digest(weights) != lora.digest(lora.state(tiny_denoiser(seed=1).transformer))
    assert lora.is_identity(weights)
    assert first.canary_shift() == 0.0
    assert first.adopt(version_of(weights, 0), packed(weights), worker="w").canary_shift == 0.0


def test_lora_weights_are_float32_over_a_bfloat16_base() -> None:
    denoiser = tiny_denoiser()
    half = FluxTransformer2DModel.from_config(denoiser.transformer.config).to(torch.bfloat16)
    editor = EditorConfig(lora=LoraSettings(rank=4, alpha=8))
    policy = Denoiser(KontextBody(half, token=16), editor, seed=0)
    assert {parameter.dtype for parameter in lora.parameters(policy.transformer).values()} == {torch.float32}
    assert all(parameter.requires_grad == (".lora_" in name) for name, parameter in half.named_parameters())


def test_an_adopted_version_is_proved_by_count_digest_and_canary(
    denoiser: Denoiser, trained: dict[str, torch.Tensor]
) -> None:
    version = version_of(trained)
    proof = denoiser.adopt(version, packed(trained), worker="rollout-3")
    assert (proof.worker, proof.version, proof.digest) == ("rollout-3", 1, version.digest)
    assert proof.modules == denoiser.policy.modules == 22
    assert proof.canary_shift > 0


def test_going_from_a_to_b_to_a_restores_every_bit(denoiser: Denoiser, trained: dict[str, torch.Tensor]) -> None:
    other = {name: tensor * 2 for name, tensor in trained.items()}
    first = denoiser.adopt(version_of(trained), packed(trained), worker="w")
    denoiser.adopt(version_of(other, 2), packed(other), worker="w")
    again = denoiser.adopt(version_of(trained, 3), packed(trained), worker="w")
    assert (first.digest, first.canary_shift) == (again.digest, again.canary_shift)


def test_renamed_keys_bind_nothing_and_are_refused(denoiser: Denoiser, trained: dict[str, torch.Tensor]) -> None:
    before = lora.digest(lora.state(denoiser.transformer))
    renamed = {"base_model." + name: tensor for name, tensor in trained.items()}
    with pytest.raises(VersionMismatchError, match="44 of 44 missing"):
        denoiser.adopt(version_of(renamed), packed(renamed), worker="w")
    assert lora.digest(lora.state(denoiser.transformer)) == before


def test_a_missing_module_and_a_wrong_shape_are_refused(denoiser: Denoiser, trained: dict[str, torch.Tensor]) -> None:
    name = next(iter(trained))
    with pytest.raises(VersionMismatchError, match="1 of 44 missing"):
        lora.load(denoiser.transformer, {key: value for key, value in trained.items() if key != name})
    with pytest.raises(VersionMismatchError, match="shape"):
        lora.load(denoiser.transformer, trained | {name: trained[name][:1]})


def test_bytes_cut_off_or_altered_on_the_way_are_refused(denoiser: Denoiser, trained: dict[str, torch.Tensor]) -> None:
    data = packed(trained).copy()
    with pytest.raises(VersionMismatchError, match="cannot be read"):
        denoiser.adopt(version_of(trained), data[:-100], worker="w")
    data[-1] ^= 1
    with pytest.raises(VersionMismatchError, match="digest"):
        denoiser.adopt(version_of(trained), data, worker="w")


def test_a_version_that_claims_to_act_and_does_not_is_refused(denoiser: Denoiser) -> None:
    weights = lora.state(denoiser.transformer)
    with pytest.raises(VersionMismatchError, match="canary"):
        denoiser.adopt(version_of(weights, is_identity=False), packed(weights), worker="w")


def test_a_version_for_another_number_of_modules_is_refused(
    denoiser: Denoiser, trained: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(VersionMismatchError, match="bound 22 modules, the version is for 266"):
        denoiser.adopt(version_of(trained, modules=266), packed(trained), worker="w")


@torch.no_grad()
def test_disabling_the_lora_gives_the_base_model_and_comes_back(
    denoiser: Denoiser, trained: dict[str, torch.Tensor], conditions: Conditions
) -> None:
    x = normal(5, 1, *denoiser.latent_shape(conditions))
    base = denoiser.velocity(conditions)(x, 0.5)
    lora.load(denoiser.transformer, trained)
    with_lora = denoiser.velocity(conditions)(x, 0.5)
    with lora.disabled(denoiser.transformer):
        assert torch.equal(denoiser.velocity(conditions)(x, 0.5), base)
    assert torch.equal(denoiser.velocity(conditions)(x, 0.5), with_lora)
    assert not torch.equal(base, with_lora)
