"""What the transformer is given for a velocity, and the proof that a version was adopted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser, check
from rc_grpo.messages import Conditions, PolicyVersion, VersionMismatchError, VersionProof
from rc_grpo.seeds import normal
from tests.conftest import tiny_conditions, tiny_denoiser

VERSION = PolicyVersion(4, "d" * 64, 22, is_identity=False)
PROOF = VersionProof("rollout-3", 4, 22, "d" * 64, 0.5)


def of_size(height: int, width: int) -> Conditions:
    return Conditions(height=height, width=width, arrays={}, text_valid=np.ones(1, dtype=np.bool_))


def test_there_is_a_latent_for_every_token_of_the_image_with_the_models_channels(denoiser: Denoiser) -> None:
    assert denoiser.latent_shape(of_size(48, 64)) == (12, 16)
    assert denoiser.latent_shape(of_size(512, 1024)) == (2048, 16)


@pytest.mark.parametrize(
    ("side", "steps", "levels"),
    [
        (512, 8, [1.0, 0.929, 0.849, 0.758, 0.652, 0.530, 0.385, 0.211, 0.0]),
        (1024, 2, [1.0, 0.7595, 0.0]),
        (512, 1, [1.0, 0.0]),
    ],
)
def test_the_schedule_is_kontexts_for_the_images_size(
    denoiser: Denoiser, side: int, steps: int, levels: list[float]
) -> None:
    sigmas = denoiser.sigmas(steps, of_size(side, side))
    assert sigmas.dtype == torch.float64
    assert sigmas.tolist() == pytest.approx(levels, abs=6e-4)


def inputs_of(denoiser: Denoiser, x: torch.Tensor, sigma: float, conditions: Conditions) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    handle = denoiser.transformer.register_forward_pre_hook(
        lambda module, arguments, named: seen.update(named), with_kwargs=True
    )
    with torch.no_grad():
        denoiser.velocity(conditions)(x, sigma)
    handle.remove()
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_transformer_gets_target_then_reference_their_places_and_the_conditions(dtype: torch.dtype) -> None:
    denoiser, conditions = tiny_denoiser(dtype=dtype), tiny_conditions()
    x = normal(5, 2, 12, 16)
    given = inputs_of(denoiser, x, 0.7139, conditions)
    reference, prompt, pooled = (
        torch.tensor(conditions.arrays[name]).to(dtype) for name in ("reference", "prompt", "pooled")
    )
    assert given["hidden_states"].equal(torch.cat([x.to(dtype), torch.stack([reference] * 2)], dim=1))
    assert given["encoder_hidden_states"].equal(torch.stack([prompt] * 2))
    assert given["pooled_projections"].equal(torch.stack([pooled] * 2))
    assert given["timestep"].equal(torch.tensor([713.9, 713.9]).to(dtype) / 1000)
    assert given["guidance"].tolist() == [2.5, 2.5]
    places = [[image, row, column] for image in (0, 1) for row in range(3) for column in range(4)]
    assert given["img_ids"].tolist() == places
    assert given["txt_ids"].tolist() == [[0, 0, 0]] * 6


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_velocity_is_the_targets_part_of_the_output_in_the_dtype_of_the_state(dtype: torch.dtype) -> None:
    denoiser, conditions = tiny_denoiser(dtype=dtype), tiny_conditions()
    outputs: list[torch.Tensor] = []
    denoiser.transformer.register_forward_hook(lambda module, arguments, output: outputs.append(output[0]))
    x = normal(5, 2, 12, 16)
    value = denoiser.velocity(conditions)(x, 0.5)
    assert (value.shape, value.dtype) == (x.shape, torch.float32)
    assert value.equal(outputs[0][:, :12].float())
    assert not denoiser.transformer.training


@torch.no_grad()
def test_guidance_is_the_configurations(denoiser: Denoiser, conditions: Conditions) -> None:
    guided = tiny_denoiser(denoiser.config.model_copy(update={"guidance": 4.0}))
    x = normal(5, 1, 12, 16)
    assert inputs_of(guided, x, 0.5, conditions)["guidance"].tolist() == [4.0]
    assert not guided.velocity(conditions)(x, 0.5).equal(denoiser.velocity(conditions)(x, 0.5))


@torch.no_grad()
def test_a_bound_field_keeps_its_task_whatever_is_done_to_the_arrays(
    denoiser: Denoiser, conditions: Conditions
) -> None:
    arrays = {name: array.copy() for name, array in conditions.arrays.items()}
    field, x = denoiser.velocity(replace(conditions, arrays=arrays)), normal(5, 1, 12, 16)
    before = field(x, 0.5)
    for array in arrays.values():
        array[:] = 0
    assert field(x, 0.5).equal(before)


def test_a_velocity_runs_through_what_the_learner_puts_in_the_models_place(
    denoiser: Denoiser, conditions: Conditions
) -> None:
    calls: list[int] = []

    def engine(**inputs: Any) -> Any:
        calls.append(len(inputs["hidden_states"]))
        return denoiser.transformer(**inputs)

    denoiser.through(engine)
    denoiser.velocity(conditions)(normal(5, 2, 12, 16), 0.5)
    assert calls == [2]


@pytest.fixture
def trained(denoiser: Denoiser) -> dict[str, torch.Tensor]:
    return {name: tensor + 0.1 for name, tensor in lora.state(denoiser.transformer).items()}


def test_a_version_that_claims_to_do_nothing_and_acts_is_refused(
    denoiser: Denoiser, trained: dict[str, torch.Tensor]
) -> None:
    version, data = lora.pack(1, trained)
    with pytest.raises(VersionMismatchError, match=r"the canary moved by .* but the weights are the identity"):
        denoiser.adopt(replace(version, is_identity=True), data, worker="w")


def test_the_canary_is_the_same_for_every_worker_and_does_not_depend_on_what_was_adopted_before(
    trained: dict[str, torch.Tensor],
) -> None:
    version, data = lora.pack(1, trained)
    first, second = tiny_denoiser(), tiny_denoiser()
    second.adopt(*lora.pack(2, {name: 2 * tensor for name, tensor in trained.items()}), worker="second")
    shifts = {each.adopt(version, data, worker="w").canary_shift for each in (first, second)}
    assert len(shifts) == 1
    assert shifts != {0.0}


def test_the_canarys_shift_is_the_largest_change_whatever_its_sign_and_the_base_is_asked_once(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    acting, asked = [True], []

    @contextmanager
    def disabled() -> Iterator[None]:
        acting[0] = False
        yield
        asked.append("the base model")
        acting[0] = True

    def velocity(conditions: Conditions) -> Callable[[torch.Tensor, float], torch.Tensor]:
        change = torch.linspace(-2.0, 0.5, 16)
        return lambda x, sigma: x + change if acting[0] else x

    monkeypatch.setattr(denoiser.policy, "disabled", disabled)
    monkeypatch.setattr(denoiser, "velocity", velocity)
    assert denoiser.canary_shift() == pytest.approx(2.0)
    assert denoiser.canary_shift() == pytest.approx(2.0)
    assert asked == ["the base model"]


def test_a_proof_that_fits_its_version_passes() -> None:
    check(VERSION, PROOF, expected_modules=22)
    check(replace(VERSION, is_identity=True), replace(PROOF, canary_shift=0.0), expected_modules=22)


@pytest.mark.parametrize(
    ("version", "proof", "modules", "says"),
    [
        ({}, {"modules": 21}, 22, "bound 21 modules, the version is for 22, the model has 22"),
        ({"modules": 21}, {}, 22, "bound 22 modules, the version is for 21, the model has 22"),
        ({}, {}, 23, "bound 22 modules, the version is for 22, the model has 23"),
        ({}, {"digest": "e" + "d" * 63}, 22, "digest of the applied weights is eddddddd"),
        ({}, {"digest": "d" * 63 + "e"}, 22, "digest of the applied weights is dddddddd"),
        ({}, {"canary_shift": 0.0}, 22, "moved by 0, but the weights are not the identity"),
        ({}, {"canary_shift": float("nan")}, 22, "moved by nan"),
        ({"is_identity": True}, {"canary_shift": 1e-30}, 22, "moved by 1e-30, but the weights are the identity"),
    ],
)
def test_whatever_differs_between_version_proof_and_model_is_named(
    version: dict[str, Any], proof: dict[str, Any], modules: int, says: str
) -> None:
    with pytest.raises(VersionMismatchError, match=f"rollout-3 at version v4:dddddddd.*{says}"):
        check(replace(VERSION, **version), replace(PROOF, **proof), expected_modules=modules)
