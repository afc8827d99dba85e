import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rc_grpo.algorithm.attention_density import concentration, mass_in_mask, token_weights

from .strategies import randn, seeds


def explicit(queries: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    """The attended mass by way of the whole attention matrix."""
    attention = torch.softmax(queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1]), dim=-1)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones_like(attention[..., 0]))
    return (attention * mask[:, None, None, :]).sum(dim=-1)


@st.composite
def layers(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, length, tokens, width = (draw(st.integers(1, high)) for high in (3, 4, 5, 12, 10))
    seed = draw(seeds)
    mask = randn(seed, batch, tokens) > 0
    mask[:, 0] = True
    return randn(seed + 1, batch, heads, length, width), randn(seed + 2, batch, heads, tokens, width), mask


@given(layers(), st.sampled_from([torch.float32, torch.float64]))
def test_fused_is_explicit(layer, dtype):
    queries, keys, mask = layer
    mass = mass_in_mask(queries.to(dtype), keys.to(dtype), mask)
    assert mass.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(mass.double(), explicit(queries, keys, mask), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(mass, mass_in_mask(queries.to(dtype), keys.to(dtype), mask.float()), rtol=0, atol=0)


@given(layers())
def test_half_precision_comes_back_single(layer):
    queries, keys, mask = layer
    mass = mass_in_mask(queries.bfloat16(), keys.bfloat16(), mask)
    assert mass.dtype == torch.float32
    expected = explicit(queries.bfloat16().double(), keys.bfloat16().double(), mask)
    torch.testing.assert_close(mass.double(), expected, rtol=0.02, atol=0.02)


def test_rounding_to_half_precision_averages_out_over_the_columns() -> None:
    tokens = 1024
    mask = (torch.arange(tokens) < tokens - 1)[None]
    queries, keys = torch.zeros(1, 2, 3, 64).bfloat16(), randn(0, 1, 2, tokens, 64).bfloat16()
    expected = torch.full((1, 2, 3), 1023 / 1024)  # ten binary digits; bfloat16 has eight
    torch.testing.assert_close(mass_in_mask(queries, keys, mask), expected, rtol=1e-5, atol=0)


@given(layers())
def test_uniform_attention_has_density_one(layer):
    queries, keys, mask = layer
    density = concentration(mass_in_mask(torch.zeros_like(queries), keys, mask), mask, None)
    torch.testing.assert_close(density, torch.ones_like(density), rtol=1e-12, atol=0)


@given(layers())
def test_attention_all_inside_has_density_n_over_m(layer):
    queries, _, mask = layer
    queries = queries.abs() + 1
    keys = torch.where(mask[:, None, :, None], 1e3, -1e3).expand(-1, *queries.shape[1:2], -1, queries.shape[-1])
    density = concentration(mass_in_mask(queries, keys.double(), mask), mask, None)
    torch.testing.assert_close(density, mask.shape[1] / mask.sum(dim=1).double(), rtol=1e-12, atol=0)


@given(layers())
def test_a_mask_and_its_complement_share_one_attention(layer):
    queries, keys, mask = layer
    mask[:, -1] = False
    if mask.shape[1] == 1 or not mask.any(dim=1).all():
        return
    share = mask.double().mean(dim=1)
    inside = concentration(mass_in_mask(queries, keys, mask), mask, None)
    outside = concentration(mass_in_mask(queries, keys, ~mask), ~mask, None)
    torch.testing.assert_close(share * inside + (1 - share) * outside, torch.ones_like(share), rtol=1e-12, atol=0)


@given(layers(), st.sampled_from([torch.float32, torch.float64]))
def test_a_full_mask_has_density_one_whatever_the_model_does(layer, dtype):
    queries, keys, mask = layer
    full = torch.ones_like(mask)
    density = concentration(mass_in_mask(queries.to(dtype), keys.to(dtype), full), full, None)
    torch.testing.assert_close(
        density, torch.ones_like(density), rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0
    )


@given(layers(), seeds)
def test_padding_is_not_counted(layer, seed):
    queries, keys, mask = layer
    valid = randn(seed, queries.shape[0], queries.shape[2]) > 0
    valid[:, 0] = True
    mass = mass_in_mask(queries, keys, mask)
    density = concentration(mass, mask, valid)
    for row in range(len(mask)):
        expected = mask.shape[1] / mask[row].sum() * mass[row][:, valid[row]].mean()
        torch.testing.assert_close(density[row], expected)
    poisoned = mass.masked_fill(~valid[:, None, :], math.nan)
    torch.testing.assert_close(concentration(poisoned, mask, valid), density)
    torch.testing.assert_close(concentration(mass, mask, torch.ones_like(valid)), concentration(mass, mask, None))
    torch.testing.assert_close(concentration(mass, mask.float(), valid.float()), density)


@given(layers())
def test_images_of_a_batch_do_not_touch_each_other(layer):
    queries, keys, mask = layer
    together = concentration(mass_in_mask(queries, keys, mask), mask, None)
    for row in range(len(mask)):
        one = slice(row, row + 1)
        alone = concentration(mass_in_mask(queries[one], keys[one], mask[one]), mask[one], None)
        torch.testing.assert_close(alone, together[one])


def test_a_tokens_weight_is_the_density_of_the_mask_over_the_number_of_counted_tokens() -> None:
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 0]])
    weights = token_weights(mask, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    expected = torch.tensor([[2.0, 2.0, 0.0], [0.0, 0.0, 4 / 3]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_density_has_the_dtype_of_the_mass(dtype: torch.dtype) -> None:
    mass, mask = torch.full((2, 3, 4), 0.25, dtype=dtype), torch.tensor([[1, 0], [1, 1]])
    density = concentration(mass, mask, torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]]))
    torch.testing.assert_close(density, torch.tensor([0.5, 0.25], dtype=dtype), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"text_queries": torch.zeros(1, 3, 4, 8)}, "text_queries has shape"),
        ({"text_queries": torch.zeros(2, 1, 4, 8)}, "text_queries has shape"),
        ({"image_keys": torch.zeros(3, 5, 8)}, "put heads before tokens"),
        ({"image_keys": torch.zeros(1, 3, 5, 8)}, "text_queries has shape"),
        ({"mask": torch.ones(1, 5)}, "mask has shape"),
        ({"mask": torch.ones(5, 2)}, "mask has shape"),
    ],
)
def test_a_layer_that_would_only_broadcast_is_refused(change: dict[str, Tensor], named: str) -> None:
    fitting = {"text_queries": torch.zeros(2, 3, 4, 8), "image_keys": torch.zeros(2, 3, 5, 8), "mask": torch.ones(2, 5)}
    with pytest.raises(ValueError, match=named):
        mass_in_mask(**(fitting | change))


def test_text_of_another_batch_than_the_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="text_valid has shape"):
        token_weights(torch.ones(2, 5), torch.ones(1, 4))
    with pytest.raises(ValueError, match="text_valid has shape"):
        concentration(torch.zeros(2, 3, 4), torch.ones(2, 5), torch.ones(1, 4))
    with pytest.raises(ValueError, match="mass has shape"):
        concentration(torch.zeros(2, 3, 4), torch.ones(5), None)
    with pytest.raises(ValueError, match="mask has shape"):
        token_weights(torch.ones(2, 5, 1), torch.ones(2, 4))
    with pytest.raises(ValueError, match="text_valid has shape"):
        token_weights(torch.ones(2, 5), torch.ones(2, 4, 1))


def test_one_prompt_without_a_token_is_refused_by_its_row() -> None:
    with pytest.raises(ValueError, match=r"text_valid counts no token in rows \[1\]"):
        token_weights(torch.ones(2, 5), torch.tensor([[1, 0], [0, 0]]))


def test_bad_input_is_named():
    mass, mask = torch.zeros(2, 3, 4), torch.ones(2, 5, dtype=torch.bool)
    empty = mask.clone()
    empty[1] = False
    with pytest.raises(ValueError, match=r"mask is empty in rows \[1\]"):
        concentration(mass, empty, None)
    with pytest.raises(ValueError, match=r"text_valid counts no token in rows \[0, 1\]"):
        concentration(mass, mask, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="text_valid has shape"):
        concentration(mass, mask, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"mask holds 0\.5"):
        concentration(mass, mask * 0.5, None)
    with pytest.raises(ValueError, match="mask has shape"):
        concentration(mass, mask[:1], None)
    with pytest.raises(ValueError, match="mass has shape"):
        concentration(mass[0], mask, None)
    queries, keys = torch.zeros(2, 3, 4, 8), torch.zeros(2, 3, 5, 8)
    with pytest.raises(ValueError, match="text_queries has shape"):
        mass_in_mask(queries[0], keys, mask)
    with pytest.raises(ValueError, match="text_queries has shape"):
        mass_in_mask(queries[..., :4], keys, mask)
    with pytest.raises(ValueError, match="mask has shape"):
        mass_in_mask(queries, keys, mask[:, :4])
