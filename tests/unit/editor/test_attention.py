import contextlib

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


def concentrations(
    denoiser: Denoiser,
    conditions: Conditions,
    start: torch.Tensor,
    mask: torch.Tensor,
    layers: tuple[int, ...],
    sigmas: tuple[float, ...] = (1.0,),
) -> torch.Tensor:
    """The densities ``[B, layers, T]`` of one velocity call a sigma."""
    with torch.no_grad(), denoiser.recording(layers, mask, torch.from_numpy(conditions.text_valid)) as recorder:
        for sigma in sigmas:
            denoiser.velocity(conditions)(start, sigma)
    return recorder.density


def test_densities_come_in_the_order_of_layers_and_calls(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    together = concentrations(denoiser, conditions, start, mask, (3, 0, 2), (1.0, 0.25))
    assert together.dtype == torch.float32
    apart = [
        concentrations(denoiser, conditions, start, mask, (layer,), (sigma,))
        for layer in (3, 0, 2)
        for sigma in (1.0, 0.25)
    ]
    assert together.equal(torch.cat(apart, dim=-1).view(2, 3, 2))
    assert len(set(together[0].flatten().tolist())) == 6


@pytest.mark.parametrize("fails", [False, True])
def test_after_recording_the_model_trains_as_before_even_if_the_rollout_failed(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor, fails: bool
) -> None:
    before = dict(denoiser.transformer.attn_processors)
    with (
        contextlib.suppress(InterruptedError),
        denoiser.recording(LAYERS, mask, torch.from_numpy(conditions.text_valid)),
    ):
        if fails:
            raise InterruptedError
    after = denoiser.transformer.attn_processors
    assert all(after[name] is processor for name, processor in before.items())
    denoiser.velocity(conditions)(start, 1.0).sum().backward()
    assert any(weights.grad is not None for weights in denoiser.policy.weights().values())
    assert not denoiser.transformer._forward_hooks


@torch.no_grad()
def test_a_layer_that_no_longer_runs_is_an_error_and_not_its_last_number_again(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    field = denoiser.velocity(conditions)
    with denoiser.recording((1, 2), mask, torch.from_numpy(conditions.text_valid)):
        field(start, 1.0)
        denoiser.transformer.set_attn_processor(FluxAttnProcessor())
        with pytest.raises(RuntimeError, match="did not run"):
            field(start, 0.5)


@torch.no_grad()
@pytest.mark.parametrize("valid_only", [True, False])
def test_the_recorded_density_is_that_of_the_models_own_attention(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor, valid_only: bool
) -> None:
    """Recomputed by hand from the queries and keys that the attention really used, rotary embedding included."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    text = len(conditions.text_valid)
    target = slice(text, text + start.shape[1])

    def spy(attn: torch.nn.Module, _args: object, inputs: dict[str, torch.Tensor]) -> None:
        streams = {"hidden_states": ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))}
        if "encoder_hidden_states" in inputs:
            of_text = ((attn.norm_added_q, attn.add_q_proj), (attn.norm_added_k, attn.add_k_proj))
            streams = {"encoder_hidden_states": of_text} | streams
        query, key = (
            torch.cat(
                [
                    norm(projection(inputs[name]).unflatten(-1, (attn.heads, -1)))
                    for name, pairs in streams.items()
                    for norm, projection in (pairs[part],)
                ],
                dim=1,
            )
            for part in (0, 1)
        )
        query, key = (apply_rotary_emb(part, inputs["image_rotary_emb"], sequence_dim=1) for part in (query, key))
        seen.append((query[:, :text], key[:, target]))

    for block in (*denoiser.transformer.transformer_blocks, *denoiser.transformer.single_transformer_blocks):
        block.attn.register_forward_pre_hook(spy, with_kwargs=True)
    counted = torch.from_numpy(conditions.text_valid) if valid_only else torch.ones(text, dtype=torch.bool)
    with denoiser.recording((2, 0, 3, 1), mask, counted) as recorder:
        denoiser.velocity(conditions)(start, 1.0)
    for place, layer in enumerate((2, 0, 3, 1)):
        query, key = seen[layer]
        attention = torch.einsum("blhd,bnhd->bhln", query, key).div(query.shape[-1] ** 0.5).softmax(-1)
        mass = attention[..., mask].sum(-1)[:, :, counted].mean(dim=(1, 2))
        expected = mass * mask.numel() / mask.sum()
        torch.testing.assert_close(recorder.density[:, place, 0], expected, rtol=1e-5, atol=1e-6)


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
    for number, (name, weight) in enumerate(denoiser.transformer.named_parameters()):
        if ".attn.norm_" in name:
            weight.copy_(torch.linspace(0.5, 1.5 + number, len(weight)))
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


def test_the_gradient_of_every_blocks_attention_is_dense(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[torch.Tensor] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*arguments: torch.Tensor, **options: object) -> torch.Tensor:
        mixed = attend(*arguments, **options)  # type: ignore[arg-type]
        mixed.register_hook(received.append)
        return mixed

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    denoiser.velocity(conditions)(start, 0.5).sum().backward()
    assert len(received) == len(LAYERS)
    assert all(gradient.transpose(1, 2).is_contiguous() for gradient in received)


def test_recording_under_gradients_is_refused(
    denoiser: Denoiser, conditions: Conditions, start: torch.Tensor, mask: torch.Tensor
) -> None:
    with (
        denoiser.recording(LAYERS, mask, torch.from_numpy(conditions.text_valid)),
        pytest.raises(RuntimeError, match="without gradients"),
    ):
        denoiser.velocity(conditions)(start, 1.0)


@pytest.mark.parametrize("layer", [4, -1])
def test_a_layer_that_does_not_exist_is_named(denoiser: Denoiser, mask: torch.Tensor, layer: int) -> None:
    with (
        pytest.raises(ValueError, match=rf"layer {layer}; this model has layers 0\.\.3"),
        denoiser.recording((0, layer), mask, torch.ones(3, dtype=torch.bool)),
    ):
        pass


@pytest.mark.parametrize(("inside", "counted"), [(0, 3), (1, 0)])
def test_a_region_or_a_prompt_of_no_size_is_refused(denoiser: Denoiser, inside: int, counted: int) -> None:
    with (
        pytest.raises(ValueError, match=r"empty|counts no token"),
        denoiser.recording((0,), torch.arange(12) < inside, torch.arange(3) < counted),
    ):
        pass
