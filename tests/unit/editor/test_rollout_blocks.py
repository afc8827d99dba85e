"""What a GPU's rollouts run, on a CPU: the rearranged blocks, and the plain form of the fused kernels."""

from typing import get_args

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch.nn import functional

from rc_grpo.config import RolloutConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast import kernels
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal
from tests.unit.editor.quantised import assert_quantised
from tests.unit.editor.test_pocket_editor import POCKET


@torch.no_grad()
def test_rearranged_blocks_are_the_same_function(denoiser: Denoiser, conditions: Conditions) -> None:
    x = normal(5, 2, *denoiser.latent_shape(conditions))
    before = denoiser.velocity(conditions)(x, 0.5)
    parameters = sum(parameter.numel() for parameter in denoiser.transformer.parameters())
    denoiser.body.arrange(fp8=False)
    torch.testing.assert_close(denoiser.velocity(conditions)(x, 0.5), before, rtol=1e-5, atol=1e-5)
    assert sum(parameter.numel() for parameter in denoiser.transformer.parameters()) == parameters


@pytest.mark.parametrize("streams", [1, 2])
def test_norm_and_rotation_are_those_of_the_model(streams: int) -> None:
    x, angles = torch.randn(2, 9, 3, 16), torch.rand(9, 8).repeat_interleave(2, dim=1)
    parts, rotary = x.tensor_split(streams, dim=1), (angles.cos(), angles.sin())
    weights = [torch.rand(16) + 0.5 for _ in parts]
    normed = [functional.rms_norm(part, (16,), weight, 1e-6) for part, weight in zip(parts, weights, strict=True)]
    expected = apply_rotary_emb(torch.cat(normed, dim=1), rotary, sequence_dim=1)
    torch.testing.assert_close(kernels.norm_and_rotate(list(parts), weights, [1e-6] * streams, *rotary), expected)


@pytest.mark.parametrize("streams", [1, 2])
def test_the_gradient_of_norm_and_rotation_is_that_of_the_model(streams: int) -> None:
    angles = torch.rand(9, 8).repeat_interleave(2, dim=1)
    rotary, weights = (angles.cos(), angles.sin()), [torch.rand(16) + 0.5 for _ in range(streams)]
    leaves = [part.clone().requires_grad_() for part in torch.randn(2, 9, 3, 16).tensor_split(streams, dim=1)]
    pull = torch.randn(2, 9, 3, 16)
    normed = [functional.rms_norm(leaf, (16,), weight, 1e-2) for leaf, weight in zip(leaves, weights, strict=True)]
    expected = torch.autograd.grad(apply_rotary_emb(torch.cat(normed, dim=1), rotary, sequence_dim=1), leaves, pull)
    got = torch.autograd.grad(kernels.norm_and_rotate(leaves, weights, [1e-2] * streams, *rotary), leaves, pull)
    torch.testing.assert_close(got, expected)


def test_a_norm_that_trains_is_refused_where_it_would_get_no_gradient() -> None:
    x, turns = torch.randn(2, 9, 3, 16, requires_grad=True), (torch.ones(9, 16), torch.zeros(9, 16))
    with pytest.raises(ValueError, match="weights: they are frozen"):
        kernels.norm_and_rotate([x], [torch.ones(16, requires_grad=True)], [1e-6], *turns)


@pytest.mark.parametrize("activation", get_args(kernels.Activation))
def test_quantised_rows_are_the_rows_to_the_formats_precision(activation: kernels.Activation) -> None:
    x = torch.randn(50, 64) * torch.logspace(-3, 3, 50)[:, None]
    x[7] = 0
    assert_quantised(x, activation)


def test_float8_where_there_is_none_is_an_error_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"rollout\.fp8 needs a GPU"):
        load_rollout_editor(POCKET.editor, RolloutConfig(fp8=True), seed=0)
