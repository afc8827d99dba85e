"""The update on a GPU: gradients are right whatever kernel, graph and activation policy they come through."""

from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention

from learner import activations
from rc_grpo.algorithm import adjoint, solver
from rc_grpo.config import EditorConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast.flash_attention import attention
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen
from rc_grpo.editor.recording import dense_gradient
from tests.gpu.models import CUDA, EVERY, SHARING, conditions_of, few_blocks, states, trained


@pytest.fixture(autouse=True)
def _fresh_graphs() -> None:
    torch._dynamo.reset()


def lora_gradient(denoiser: Denoiser) -> Tensor:
    """The gradients side by side; of what no velocity depends on (the text after the last block) a graph gives 0."""
    parameters = denoiser.policy.weights().values()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in parameters]
    flat = torch.cat([gradient.double().flatten() for gradient in gradients])
    for parameter in parameters:
        parameter.grad = None
    return flat


def by_adjoint(denoiser: Denoiser, steps: int = 3) -> tuple[Tensor, Tensor]:
    """The gradients of a random linear function of a chain's states: with respect to the LoRA, and to the noise."""
    conditions = conditions_of(denoiser)
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(steps, conditions)
    with torch.no_grad():
        path = solver.integrate(field, start(denoiser), sigmas)
    return_to_start = adjoint.backward(field, path, sigmas, pulls(path))
    return lora_gradient(denoiser), return_to_start


def by_autograd(denoiser: Denoiser, steps: int = 3) -> tuple[Tensor, Tensor]:
    conditions = conditions_of(denoiser)
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(steps, conditions)
    noise = start(denoiser).requires_grad_()
    path = solver.integrate(field, noise, sigmas)
    (path * pulls(path)).sum().backward()
    assert noise.grad is not None
    return lora_gradient(denoiser), noise.grad


def start(denoiser: Denoiser) -> Tensor:
    return states(denoiser).to(torch.float64 if denoiser.transformer.dtype == torch.float64 else torch.float32)


def pulls(path: Tensor) -> Tensor:
    return torch.randn(path.shape, device=CUDA, dtype=path.dtype, generator=torch.Generator(CUDA).manual_seed(3))


def test_the_adjoint_is_autograd_through_the_chain_in_float64() -> None:
    denoiser = few_blocks(dtype=torch.float64)
    denoiser.policy.load(trained(denoiser))
    denoiser.transformer.double()
    for whole, stepwise in zip(by_autograd(denoiser), by_adjoint(denoiser), strict=True):
        assert (whole - stepwise).norm() < 1e-9 * whole.norm()


def test_the_adjoint_is_autograd_through_the_chain_in_bfloat16() -> None:
    denoiser = few_blocks()
    denoiser.policy.load(trained(denoiser))
    for whole, stepwise in zip(by_autograd(denoiser), by_adjoint(denoiser), strict=True):
        assert cosine_similarity(whole.flatten(), stepwise.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("editor", EVERY, ids=lambda editor: editor.model)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", get_args(Activations))
def test_every_activation_policy_gives_one_gradient(kind: Activations, compiled: bool, editor: EditorConfig) -> None:
    denoiser = few_blocks(editor=editor)
    denoiser.policy.load(trained(denoiser))
    steps = 2  # A schedule that ends at a level of its own has no single one.
    with sdpa_kernel([SDPBackend.MATH]):
        expected = by_adjoint(denoiser, steps)
    activations.arrange(denoiser.body, kind, compiled=compiled)
    for got, truth in zip(by_adjoint(denoiser, steps), expected, strict=True):
        assert torch.isfinite(got).all()
        assert cosine_similarity(got.flatten().double(), truth.flatten().double(), dim=0) > 0.999


@pytest.mark.parametrize("backend", [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION])
def test_attention_that_ends_in_a_wider_tensor_has_the_right_gradient(backend: SDPBackend) -> None:
    """The gradient of a slice of a concatenation is strided; cuDNN's backward pass reads it as if it were dense."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2560, 24, 128, device=CUDA, dtype=torch.bfloat16) for _ in range(3))
    weight = torch.randn(1, 2560, 15360, device=CUDA, dtype=torch.bfloat16)

    def gradients(kernel: SDPBackend, dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.to(dtype).requires_grad_() for tensor in (query, key, value)]
        with sdpa_kernel([kernel]):
            mixed = scaled_dot_product_attention(*(leaf.transpose(1, 2) for leaf in leaves)).transpose(1, 2)
            wide = torch.cat([dense_gradient(mixed.flatten(2, 3)), mixed.new_zeros(1, 2560, 12288)], dim=2)
            return list(torch.autograd.grad((wide * weight).sum(), leaves))

    for got, truth in zip(gradients(backend, torch.bfloat16), gradients(SDPBackend.MATH, torch.float32), strict=True):
        assert (got.float() - truth).norm() < 0.02 * truth.norm()


@pytest.mark.parametrize("queries", [2560, 1000])
def test_attention_by_two_libraries_has_the_gradient_of_attention(queries: int) -> None:
    pytest.importorskip("fa3_fwd_interface")
    torch.manual_seed(0)
    tensors = [torch.randn(2, length, 24, 128, device=CUDA, dtype=torch.bfloat16) for length in (queries, 2560, 2560)]
    pull = torch.randn(2, queries, 24, 128, device=CUDA, dtype=torch.bfloat16)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    got = torch.autograd.grad(attention(*leaves)[0], leaves, pull)
    exact = [tensor.float().requires_grad_() for tensor in tensors]
    with sdpa_kernel([SDPBackend.MATH]):
        mixed = scaled_dot_product_attention(*(leaf.transpose(1, 2) for leaf in exact)).transpose(1, 2)
        truths = torch.autograd.grad(mixed, exact, pull.float())
    for one, truth in zip(got, truths, strict=True):
        assert (one.float() - truth).norm() < 0.02 * truth.norm()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_prefix_computed_once_gives_the_gradient_of_one_that_every_pass_computes(compiled: bool) -> None:
    flat = []
    for prefix in ("none", "shared"):
        denoiser = few_blocks(editor=SHARING.model_copy(update={"prefix": prefix}))
        denoiser.policy.load(trained(denoiser))
        activations.arrange(denoiser.body, "store", compiled=compiled)
        conditions = conditions_of(denoiser)
        field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(3, conditions)
        with torch.no_grad(), field.held():
            path = solver.integrate(field, start(denoiser), sigmas)
        with field.trained(Tensor.backward) as backprop:
            adjoint.backward(field, path, sigmas, pulls(path), backprop=backprop)
        flat.append(lora_gradient(denoiser))
    assert cosine_similarity(*flat, dim=0) > 0.999


@pytest.mark.parametrize("editor", EVERY, ids=lambda editor: editor.model)
@pytest.mark.parametrize("compiled", [False, True])
def test_frozen_projections_in_float8_leave_the_loras_gradient(compiled: bool, editor: EditorConfig) -> None:
    denoiser = few_blocks(editor=editor)
    denoiser.policy.load(trained(denoiser))
    expected = by_adjoint(denoiser, 2)
    quantise_frozen(denoiser.body)
    activations.arrange(denoiser.body, "store", compiled=compiled)
    for got, truth in zip(by_adjoint(denoiser, 2), expected, strict=True):
        assert not torch.equal(got, truth)
        assert cosine_similarity(got.flatten().double(), truth.flatten().double(), dim=0) > 0.99
