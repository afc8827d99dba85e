import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.metric import masked_distance, region_weights

from .strategies import masks, randn, seeds

taus = st.floats(min_value=0.1, max_value=10.0)
powers = st.sampled_from([1, 2])


@given(masks, seeds)
def test_it_is_never_negative_symmetric_and_zero_only_at_equality(mask, seed):
    weights = region_weights(mask, 3, dtype=torch.float64)
    x = randn(seed, len(mask), 3)
    y = x.clone()
    y[seed % len(mask), seed % 3] += 1e-6
    assert masked_distance(x, x, weights) == 0
    assert masked_distance(x, y, weights) > 0
    assert masked_distance(x, y, weights) == masked_distance(y, x, weights)


@given(masks, taus, taus, powers, seeds)
def test_it_is_the_mean_square_of_each_region_over_its_temperature(mask, tau_edit, tau_base, power, seed):
    x, y = randn(seed, len(mask), 3), randn(seed + 1, len(mask), 3)
    expected = (x - y)[mask].square().mean() / tau_edit**power
    if not mask.all():
        expected = expected + (x - y)[~mask].square().mean() / tau_base**power
    weights = region_weights(mask, 3, tau_edit, tau_base, power, dtype=torch.float64)
    torch.testing.assert_close(masked_distance(x, y, weights), expected, rtol=1e-12, atol=0)


@given(masks, st.integers(2, 4), seeds)
def test_repeating_every_background_token_changes_nothing(mask, times, seed):
    x, y = randn(seed, len(mask), 3), randn(seed + 1, len(mask), 3)
    repeats = torch.where(mask, 1, times)
    distance = masked_distance(x, y, region_weights(mask, 3, dtype=torch.float64))
    mask, x, y = (tensor.repeat_interleave(repeats, dim=0) for tensor in (mask, x, y))
    torch.testing.assert_close(masked_distance(x, y, region_weights(mask, 3, dtype=torch.float64)), distance)


@given(masks.filter(lambda mask: not mask.all()), taus, powers, seeds)
def test_raising_tau_base_lowers_the_backgrounds_share(mask, tau_base, power, seed):
    x, y = randn(seed, len(mask), 3), randn(seed + 1, len(mask), 3)
    shares = []
    for tau in (tau_base, 1.5 * tau_base):
        weights = region_weights(mask, 3, tau_base=tau, power=power, dtype=torch.float64)
        shares.append(masked_distance(x[~mask], y[~mask], weights[~mask]) / masked_distance(x, y, weights))
    assert shares[1] < shares[0]


@given(st.integers(1, 8), taus, powers, seeds)
def test_with_a_full_mask_it_is_the_mean_square_over_the_temperature(tokens, tau_edit, power, seed):
    x, y = randn(seed, tokens, 3), randn(seed + 1, tokens, 3)
    weights = region_weights(torch.ones(tokens, dtype=torch.bool), 3, tau_edit, power=power, dtype=torch.float64)
    expected = tau_edit**-power * (x - y).square().mean()
    torch.testing.assert_close(masked_distance(x, y, weights), expected, rtol=1e-12, atol=0)


def test_a_region_without_tokens_contributes_nothing():
    weights = region_weights(torch.zeros(4, dtype=torch.bool), 2, tau_base=1.0)
    torch.testing.assert_close(weights, torch.full((4, 2), 1 / 8))


def test_the_defaults_are_the_papers_temperatures_squared():
    weights = region_weights(torch.tensor([True, False]), 1)
    torch.testing.assert_close(weights, torch.tensor([[0.9**-2], [1.1**-2]]))


def test_leading_dimensions_broadcast_and_the_states_dtype_is_kept():
    weights = region_weights(torch.tensor([1, 0, 1]), 2)
    assert weights.dtype == torch.float32
    x, y = randn(0, 5, 3, 2), randn(1, 4, 1, 3, 2)
    distance = masked_distance(x, y, weights)
    assert distance.shape == (4, 5)
    assert distance.dtype == torch.float64
    assert masked_distance(x.float(), y.float(), weights.double()).dtype == torch.float32
    torch.testing.assert_close(distance[2, 3], masked_distance(x[3], y[2, 0], weights))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"tau_edit": 0.0}, "tau_edit is 0.0"),
        ({"tau_base": -1.0}, "tau_base is -1.0"),
        ({"tau_base": math.nan}, "tau_base is nan"),
        ({"power": 3}, "power is 3"),
        ({"power": 0}, "power is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"mask": torch.ones(2, 2)}, "mask has shape"),
        ({"mask": torch.ones(0)}, "mask has shape"),
        ({"mask": torch.tensor([0.2, 1.0])}, "mask holds 0.2"),
    ],
)
def test_bad_weights_are_named(change, named):
    with pytest.raises(ValueError, match=named):
        region_weights(**({"mask": torch.tensor([True, False]), "channels": 3} | change))


def test_states_of_another_grid_are_named():
    weights = region_weights(torch.tensor([True, False]), 3)
    with pytest.raises(ValueError, match="y has shape"):
        masked_distance(torch.zeros(2, 3), torch.zeros(3, 3), weights)


@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (3, 2), (3,)])
def test_a_state_that_would_only_broadcast_against_the_weights_is_refused(shape: tuple[int, ...]) -> None:
    weights, fitting, other = region_weights(torch.tensor([True, False]), 3), torch.zeros(2, 3), torch.zeros(shape)
    with pytest.raises(ValueError, match="x has shape"):
        masked_distance(other, fitting, weights)
    with pytest.raises(ValueError, match="y has shape"):
        masked_distance(fitting, other, weights)


def test_double_precision_weights_are_not_rounded_on_the_way() -> None:
    weights = region_weights(torch.tensor([True, False, False]), 1, dtype=torch.float64)
    expected = [[1 / 0.9**2], [1 / (1.1**2 * 2)], [1 / (1.1**2 * 2)]]
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)
