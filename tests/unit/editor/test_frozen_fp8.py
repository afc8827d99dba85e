"""Frozen projections in float8: the base model's products, and what a LoRA on them learns."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from rc_grpo.algorithm import adjoint, solver
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast.frozen_fp8 import FrozenFp8Linear, quantise_frozen
from rc_grpo.editor.loading import load_denoiser
from rc_grpo.seeds import normal
from tests.families import ROWS, Row, trained, write_models

ROUNDING = 2**-4
"""Half a unit of the last of three bits, relative to the smallest number of a binade."""


@pytest.mark.parametrize("bias", [False, True])
def test_the_output_and_the_inputs_gradient_are_the_layers_own_up_to_float8(bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=bias).requires_grad_(False)
    # Rows and columns of very different size: each has a scale of its own.
    linear.weight.mul_(torch.logspace(-2, 2, 96)[:, None] * torch.logspace(-1, 1, 64))
    x, pull = torch.randn(3, 5, 64) * torch.logspace(-2, 2, 5)[:, None], torch.randn(3, 5, 96)
    results = []
    for layer in (linear, FrozenFp8Linear(linear)):
        leaf = x.clone().requires_grad_()
        output = layer(leaf)
        (gradient,) = torch.autograd.grad((output * pull).sum(), leaf)
        results.append((output.detach(), gradient))
    sizes = (x.abs() @ linear.weight.abs().t(), pull.abs() @ linear.weight.abs())
    for exact, rounded, size in zip(*results, sizes, strict=True):
        assert not torch.equal(exact, rounded)
        # Two rounded factors in every summand.
        assert ((rounded - exact).abs() <= (2 * ROUNDING + ROUNDING**2) * size + 1e-6).all()
        assert (rounded - exact).norm() < 0.05 * exact.norm()


def test_what_is_frozen_takes_as_many_bytes_as_in_bfloat16_and_is_in_no_checkpoint() -> None:
    linear = nn.Linear(256, 512, bias=False)
    layer = FrozenFp8Linear(linear)
    assert layer.weight.nbytes + layer.back.nbytes == 2 * linear.weight.numel()
    assert not layer.state_dict()
    assert not list(layer.parameters())


def lora_gradient(denoiser: Denoiser) -> Tensor:
    conditions = denoiser.body.canary()
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(3, conditions)
    with torch.no_grad():
        path = solver.integrate(field, normal(3, 2, *denoiser.latent_shape(conditions)), sigmas)
    pulls = normal(4, *path.shape)
    adjoint.backward(field, path, sigmas, pulls)
    leaves = denoiser.policy.weights().values()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_lora_learns_nearly_the_same_on_every_family(models: Path, row: Row) -> None:
    gradients = []
    for in_float8 in (False, True):
        denoiser = load_denoiser(row.editor(models), seed=0)
        denoiser.policy.load(trained(denoiser))
        if in_float8:
            quantise_frozen(denoiser.body)
        gradients.append(lora_gradient(denoiser))
    assert not torch.equal(*gradients)
    assert cosine_similarity(*gradients, dim=0) > 0.99
