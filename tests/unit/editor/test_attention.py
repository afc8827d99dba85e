import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from rc_grpo.algorithm.solver import integrate
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.recording import dense_gradient
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal

LAYERS = (0, 1, 2, 3)


@pytest.fixture
def start(denoiser: Denoiser, conditions: Conditions) -> torch.Tensor:
    return normal(5, 2, *denoiser.latent_shape(conditions))


@pytest.fixture
def mask(start: torch.Tensor) -> torch.Tensor:
    inside = torch.zeros(start.shape[1], dtype=torch.bool)
    inside[2:5] = True
    return inside


@torch.no_grad()
def test_a_recorder_changes_no_bit_of_the_states(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    sigmas, field = denoiser.sigmas(3, conditions), denoiser.velocity(conditions)
    plain = integrate(field, start, sigmas)
    with denoiser.recording(LAYERS, mask, torch.from_numpy(conditions.text_valid)) as recorder:
        recorded = integrate(field, start, sigmas)
    assert torch.equal(plain, recorded)
    assert recorder.density.shape == (2, len(LAYERS), 3)
    assert torch.isfinite(recorder.density).all()


@torch.no_grad()
def test_nothing_is_left_in_the_model_after_recording(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    with denoiser.recording(LAYERS, mask, torch.from_numpy(conditions.text_valid)) as recorder:
        pass
    denoiser.velocity(conditions)(start, 1.0)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in denoiser.transformer.modules())
    with pytest.raises(RuntimeError):
        _ = recorder.density


@torch.no_grad()
@pytest.mark.parametrize("valid_only", [True, False])
def test_the_recorded_density_is_that_of_the_models_own_attention(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor, valid_only: bool
) -> None:
    """Recomputed by hand from the queries and keys that the attention really used, rotary embedding included."""
    seen: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    text = len(conditions.text_valid)
    target = slice(text, text + start.shape[1])

    def spy(attn: torch.nn.Module, _args: object, inputs: dict[str, torch.Tensor]) -> None:
        query, key = (
            apply_rotary_emb(
                norm(projection(inputs["hidden_states"]).unflatten(-1, (attn.heads, -1))),
                inputs["image_rotary_emb"],
                sequence_dim=1,
            )
            for norm, projection in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
        )
        seen[0] = query[:, :text], key[:, target]

    denoiser.transformer.single_transformer_blocks[0].attn.register_forward_pre_hook(spy, with_kwargs=True)
    counted = torch.from_numpy(conditions.text_valid) if valid_only else torch.ones(text, dtype=torch.bool)
    with denoiser.recording((2,), mask, counted) as recorder:
        denoiser.velocity(conditions)(start, 1.0)
    query, key = seen[0]
    attention = torch.einsum("blhd,bnhd->bhln", query, key).div(query.shape[-1] ** 0.5).softmax(-1)
    mass = attention[..., mask].sum(-1)[:, :, counted].mean(dim=(1, 2))
    expected = mass * mask.numel() / mask.sum()
    torch.testing.assert_close(recorder.density[:, 0, 0], expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_full_mask_gives_one_everywhere(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    with denoiser.recording(LAYERS, torch.ones_like(mask), torch.from_numpy(conditions.text_valid)) as recorder:
        denoiser.velocity(conditions)(start, 1.0)
    torch.testing.assert_close(recorder.density, torch.ones_like(recorder.density))


@torch.no_grad()
def test_the_processor_gives_the_bits_of_diffusers_own(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor
) -> None:
    ours = denoiser.velocity(conditions)(start, 0.5)
    denoiser.transformer.set_attn_processor(FluxAttnProcessor())
    assert torch.equal(denoiser.velocity(conditions)(start, 0.5), ours)


def test_the_gradient_that_reaches_the_attention_kernel_is_dense() -> None:
    """cuDNN's backward pass reads a gradient that is a slice of a wider one as if it were not."""
    received: list[torch.Tensor] = []
    x = torch.randn(2, 5, 8, requires_grad=True)
    attended = x * 1.0
    attended.register_hook(received.append)
    torch.cat([dense_gradient(attended), torch.zeros(2, 5, 24)], dim=2).square().sum().backward()
    assert received[0].is_contiguous()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_recording_under_gradients_is_refused(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    with (
        denoiser.recording(LAYERS, mask, torch.from_numpy(conditions.text_valid)),
        pytest.raises(RuntimeError, match="without gradients"),
    ):
        denoiser.velocity(conditions)(start, 1.0)


def test_a_layer_that_does_not_exist_is_named(denoiser: Denoiser, mask: torch.Tensor) -> None:
    with (
        pytest.raises(ValueError, match=r"layer 4; this model has layers 0\.\.3"),
        denoiser.recording((4,), mask, torch.ones(3, dtype=torch.bool)),
    ):
        pass
