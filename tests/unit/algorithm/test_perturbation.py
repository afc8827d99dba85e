import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.perturbation import candidate_noise, global_noise

from .strategies import masks, randn, same_bits, seeds

alphas = st.floats(min_value=0.0, max_value=1.0)
dtypes = st.sampled_from([torch.float32, torch.float64])


@given(masks, alphas, alphas, dtypes, seeds)
def test_the_reference_is_kept_bit_for_bit(mask, alpha_edit, alpha_base, dtype, seed):
    reference, deltas = randn(seed, len(mask), 3, dtype=dtype), randn(seed + 1, 4, len(mask), 3, dtype=dtype)
    noise = candidate_noise(reference, deltas, mask, alpha_edit, alpha_base)
    assert noise.shape == (5, len(mask), 3)
    assert same_bits(noise[0], reference)


@given(masks, alphas, dtypes, seeds)
def test_alpha_zero_freezes_its_region_bit_for_bit(mask, alpha, dtype, seed):
    reference, deltas = randn(seed, len(mask), 3, dtype=dtype), randn(seed + 1, 4, len(mask), 3, dtype=dtype)
    reference[:, 0] = -0.0
    frozen_background = candidate_noise(reference, deltas, mask, alpha, 0.0)
    frozen_edit = candidate_noise(reference, deltas, mask, 0.0, alpha)
    for i in range(5):
        assert same_bits(frozen_background[i, ~mask], reference[~mask])
        assert same_bits(frozen_edit[i, mask], reference[mask])


@given(masks, alphas, alphas, seeds)
def test_it_is_equation_10_token_by_token(mask, alpha_edit, alpha_base, seed):
    reference, deltas = randn(seed, len(mask), 2), randn(seed + 1, 3, len(mask), 2)
    noise = candidate_noise(reference, deltas, mask, alpha_edit, alpha_base)
    for i in range(3):
        for token, inside in enumerate(mask.tolist()):
            alpha = alpha_edit if inside else alpha_base
            expected = math.sqrt(1 - alpha**2) * reference[token] + alpha * deltas[i, token]
            torch.testing.assert_close(noise[i + 1, token], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("alpha_edit", "alpha_base"), [(0.3, 0.01), (0.8, 1e-5), (0.9, 0.05), (1.0, 0.3)])
def test_every_bit_is_that_of_two_products_rounded_and_their_sum_rounded(
    dtype: torch.dtype, alpha_edit: float, alpha_base: float
) -> None:
    mask = torch.arange(256) % 3 == 0
    reference, deltas = randn(1, 256, 16, dtype=dtype), randn(2, 3, 256, 16, dtype=dtype)
    alpha = np.where(mask.numpy(), alpha_edit, alpha_base)[:, None]
    kept, fresh = (amount.astype(reference.numpy().dtype) for amount in (np.sqrt(1 - alpha**2), alpha))
    expected = kept * reference.numpy() + fresh * deltas.numpy()
    noise = candidate_noise(reference, deltas, mask, alpha_edit, alpha_base)
    assert same_bits(noise[1:], torch.from_numpy(expected))


@given(masks, alphas, dtypes, seeds)
def test_one_alpha_everywhere_is_neighbor_grpo(mask, alpha, dtype, seed):
    reference, deltas = randn(seed, len(mask), 3, dtype=dtype), randn(seed + 1, 4, len(mask), 3, dtype=dtype)
    noise = global_noise(reference, deltas, alpha)
    assert same_bits(noise, candidate_noise(reference, deltas, mask, alpha, alpha))
    torch.testing.assert_close(noise[1:], math.sqrt(1 - alpha**2) * reference + alpha * deltas)


@given(masks, alphas, alphas, seeds, st.integers(1, 5))
def test_a_candidate_is_the_same_however_the_group_is_split_over_workers(mask, alpha_edit, alpha_base, seed, cut):
    reference, deltas = randn(seed, len(mask), 3), randn(seed + 1, 6, len(mask), 3)
    whole = candidate_noise(reference, deltas, mask, alpha_edit, alpha_base)
    first = candidate_noise(reference, deltas[:cut], mask, alpha_edit, alpha_base)
    second = candidate_noise(reference, deltas[cut:], mask, alpha_edit, alpha_base)
    assert same_bits(whole, torch.cat([first, second[1:]]))


@given(masks, alphas, alphas, seeds)
def test_a_zero_one_mask_is_a_boolean_mask(mask, alpha_edit, alpha_base, seed):
    reference, deltas = randn(seed, len(mask), 3), randn(seed + 1, 2, len(mask), 3)
    expected = candidate_noise(reference, deltas, mask, alpha_edit, alpha_base)
    for dtype in (torch.float32, torch.uint8, torch.int64):
        assert same_bits(candidate_noise(reference, deltas, mask.to(dtype), alpha_edit, alpha_base), expected)


@pytest.mark.parametrize(("alpha_edit", "alpha_base"), [(0.3, 0.01), (0.9, 0.5), (0.3, 0.3), (1.0, 0.0)])
def test_marginals_are_standard_normal_and_correlations_are_the_papers_in_both_regions(alpha_edit, alpha_base):
    tokens = 20_000
    mask = torch.arange(tokens) < tokens // 2
    noise = candidate_noise(randn(1, tokens, 4), randn(2, 2, tokens, 4), mask, alpha_edit, alpha_base)
    for region, alpha in ((mask, alpha_edit), (~mask, alpha_base)):
        samples = noise[:, region].flatten(1)
        tolerance = 4 / math.sqrt(samples.shape[1])
        assert samples.mean(dim=1).abs().max() < tolerance
        assert (samples.var(dim=1) - 1).abs().max() < 2 * tolerance
        correlation = torch.corrcoef(samples)
        assert abs(correlation[0, 1] - math.sqrt(1 - alpha**2)) < tolerance
        assert abs(correlation[0, 2] - math.sqrt(1 - alpha**2)) < tolerance
        assert abs(correlation[1, 2] - (1 - alpha**2)) < tolerance


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"alpha_edit": 1.5}, "alpha_edit is 1.5"),
        ({"alpha_base": -0.1}, "alpha_base is -0.1"),
        ({"alpha_base": math.nan}, "alpha_base is nan"),
        ({"reference": torch.zeros(2, 4, 3)}, "reference has shape"),
        ({"deltas": torch.zeros(5, 4, 2)}, "deltas has shape"),
        ({"deltas": torch.zeros(0, 4, 3)}, "deltas has shape"),
        ({"deltas": torch.zeros(5, 1, 3)}, "deltas has shape"),
        ({"deltas": torch.zeros(4, 3)}, "deltas has shape"),
        ({"deltas": torch.zeros(5, 4, 3, dtype=torch.float64)}, "deltas is torch.float64"),
        ({"reference": torch.zeros(4, 3).int(), "deltas": torch.zeros(5, 4, 3).int()}, "in one floating-point dtype"),
        ({"mask": torch.ones(1, 4)}, "mask has shape"),
        ({"mask": torch.ones(5, dtype=torch.bool)}, "mask has shape"),
        ({"mask": torch.tensor([0.0, 0.5, 1.0, 1.0])}, "mask holds 0.5"),
        ({"mask": torch.tensor([0, 255, 0, 0])}, "mask holds 255"),
    ],
)
def test_bad_input_is_named(change, named):
    arguments = {
        "reference": torch.zeros(4, 3),
        "deltas": torch.zeros(5, 4, 3),
        "mask": torch.tensor([True, False, True, False]),
        "alpha_edit": 0.3,
        "alpha_base": 0.01,
    }
    with pytest.raises(ValueError, match=named):
        candidate_noise(**(arguments | change))
