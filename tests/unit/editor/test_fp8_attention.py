"""Attention in float8, as far as a CPU shows it."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from rc_grpo.config import RolloutConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast import fp8_attention
from rc_grpo.editor.fast.fp8_attention import attention_in_float8, quantise_heads
from rc_grpo.editor.stock.body import StockBody
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal


def test_every_head_of_every_image_has_a_scale_of_its_own_at_the_formats_largest_number() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 7, 3, 16) * torch.logspace(-3, 3, 6).view(2, 1, 3, 1)
    values, scale = quantise_heads(x)
    assert scale.shape == (2, 3)
    assert (values.float().abs().amax(dim=(1, 3)) == 448).all()
    assert (
        (values.float() * scale[:, None, :, None] - x).abs() <= x.abs() * 2**-4 + scale[:, None, :, None] * 2**-9
    ).all()


def test_it_mixes_what_attention_mixes_to_a_few_per_cent_and_queries_may_be_fewer() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 5, 3, 32), torch.randn(2, 40, 3, 32), torch.randn(2, 40, 3, 32)
    exact = scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value))).transpose(1, 2)
    mixed = attention_in_float8(query, key, value)
    assert 0 < (mixed - exact).norm() < 0.06 * exact.norm()


@torch.no_grad()
def test_recorded_attention_is_measured_before_anything_is_rounded(denoiser: Denoiser, conditions: Conditions) -> None:
    x = normal(5, 2, *denoiser.latent_shape(conditions))
    mask, counted = torch.arange(x.shape[1]) % 3 == 0, torch.from_numpy(conditions.text_valid)
    velocities, densities = [], []
    assert isinstance(denoiser.body, StockBody)
    for fused in (True, "fp8"):
        denoiser.body.fused = fused
        for block in denoiser.body.blocks:
            block.attn.set_processor(denoiser.body.processor(block, None))
        with denoiser.recording((0,), mask, counted) as recorder:
            velocities.append(denoiser.velocity(conditions)(x, 0.5))
        densities.append(recorder.density)
    assert torch.equal(*densities)
    assert 0 < (velocities[1] - velocities[0]).norm() < 0.1 * velocities[0].norm()


def test_what_is_missing_for_it_is_said_with_the_way_out() -> None:
    assert [RolloutConfig(fp8=value).fp8 for value in (True, False, "gemm", "all")] == [True, False, "gemm", "all"]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"rollout\.fp8=all needs a GPU with float8"):
        fp8_attention.check(torch.device("cpu"), torch.bfloat16)
