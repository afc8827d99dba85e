"""One seed, one stream: the whole seed counts, the bits are the same everywhere, and the numbers are normal."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from rc_grpo.messages import RolloutSeeds
from rc_grpo.seeds import derive, normal, permutation, uniform

parts = st.one_of(st.integers(-(10**9), 10**20), st.text("\x1e\x1fa:int1", max_size=8), st.text(max_size=8))
paths = st.lists(parts, min_size=1, max_size=4).map(tuple)
MASK = 2**64 - 1


def philox(key: int, blocks: int) -> list[int]:
    """Philox4x64-10 by its definition (Salmon et al. 2011), of counters 1, 2, ... as numpy numbers them."""
    words = []
    for block in range(1, blocks + 1):
        c, k = [block, 0, 0, 0], [key & MASK, key >> 64]
        for _ in range(10):
            one, two = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = [(two >> 64) ^ c[1] ^ k[0], two & MASK, (one >> 64) ^ c[3] ^ k[1], one & MASK]
            k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
        words += c
    return words


def halves(key: int, blocks: int) -> list[int]:
    return [half for word in philox(key, blocks) for half in (word & 0xFFFFFFFF, word >> 32)]


@given(paths, paths)
def test_a_seed_is_a_function_of_its_path_and_of_nothing_else(left: tuple, right: tuple) -> None:
    assert (derive(*left) == derive(*right)) == (left == right)
    assert 0 <= derive(*left) < 2**63


@pytest.mark.parametrize(
    ("one", "other"), [(("a\x1fint:3",), ("a", 3)), (("a\x1e", "b"), ("a\x1e\x1fstr:b",)), (("", ""), ("\x1fstr:",))]
)
def test_a_name_cannot_pass_for_two(one: tuple, other: tuple) -> None:
    assert derive(*one) != derive(*other)


def test_a_counter_is_its_value_whatever_holds_it_and_half_a_counter_is_none() -> None:
    assert derive(np.int64(3), "a") == derive(3, "a") == derive(np.uint8(3), "a")
    with pytest.raises(TypeError):
        derive(3.5)  # type: ignore[arg-type]


def test_seeds_do_not_change_between_releases() -> None:
    assert derive(7, "delta", 3, "task-17", 5) == 3741159540575374466


def test_the_noise_of_a_group_does_not_depend_on_its_size() -> None:
    small, large = (RolloutSeeds.for_group(7, 3, "task", size) for size in (4, 9))
    assert small.reference == large.reference
    assert small.deltas == large.deltas[:3]
    assert (small.group_size, large.group_size) == (4, 9)
    assert len({small.reference, *large.deltas}) == 9


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 0x0123456789ABCDEF_FEDCBA9876543210, 2**128 - 1])
def test_numbers_are_quantiles_of_the_philox_stream_of_their_seed(seed: int) -> None:
    signed = [half - 2**32 if half >= 2**31 else half for half in halves(seed, 8)]
    middles = np.array([float(Fraction(2 * one + 1, 2**33)) for one in signed])
    np.testing.assert_allclose(normal(seed, 64).numpy(), special.ndtri(middles + 0.5), rtol=2e-7)
    np.testing.assert_array_equal(uniform(seed, 64).numpy(), np.array([one + 2**31 >> 8 for one in signed]) / 2**24)
    words = philox(seed, 5)
    assert permutation(seed, 20) == sorted(range(20), key=words.__getitem__)


def test_bits_do_not_change_between_releases_and_machines() -> None:
    drawn = normal(derive(7, "delta", 3, "task-17", 5), 4096, 64).numpy()
    assert hashlib.sha256(drawn.astype("<f4").tobytes()).hexdigest() == (
        "7a0868f16459522dd19a66dc7666881239e3006a20995c635ba8aac70c8712e7"
    )
    assert uniform(11, 3).tolist() == [0.3549826741218567, 0.6270174980163574, 0.21354162693023682]
    assert permutation(11, 6) == [5, 0, 4, 3, 2, 1]


def test_far_tails_are_those_of_the_distribution() -> None:
    drawn = np.concatenate([normal(seed, 1 << 19).numpy().astype(float) for seed in range(8)])
    for beyond in (2.0, 3.0, 4.0, 4.5):
        for side in (drawn, -drawn):
            count, expected = int((side > beyond).sum()), len(drawn) * stats.norm.sf(beyond)
            assert abs(count - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**62 + 1, derive(0, "delta", 1, "a", 1)])
def test_numbers_are_independent_and_normal(seed: int) -> None:
    drawn = normal(seed, 400_000).numpy().astype(float)
    assert stats.kstest(drawn, "norm").pvalue > 1e-4
    assert abs(drawn.mean()) < 5 / np.sqrt(len(drawn))
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / len(drawn))
    assert abs((drawn**4).mean() - 3) < 5 * np.sqrt(96 / len(drawn))
    for lag in (1, 2, 4, 8, 64):
        for power in (1, 2):
            one, other = drawn[:-lag] ** power, drawn[lag:] ** power
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(len(one))


@given(st.integers(0, 2**63 - 1), st.integers(0, 62))
def test_every_bit_of_a_seed_counts(seed: int, bit: int) -> None:
    one, other = normal(seed, 512), normal(seed ^ (1 << bit), 512)
    assert not torch.equal(one, other)
    assert abs(float(one @ other)) / 512 < 6 / np.sqrt(512)
    assert not torch.equal(uniform(seed, 64), uniform(seed ^ (1 << bit), 64))
    assert permutation(seed, 64) != permutation(seed ^ (1 << bit), 64)


@pytest.fixture(scope="module")
def seeds() -> np.ndarray:
    return np.array([derive(7, "delta", update, "a", 1) for update in range(150_000)])


def test_no_two_seeds_of_a_long_run_are_equal(seeds: np.ndarray) -> None:
    assert len(np.unique(seeds)) == len(seeds)


@pytest.mark.parametrize("window", [0, 16])
def test_seeds_that_share_thirty_two_of_their_bits_share_no_number(seeds: np.ndarray, window: int) -> None:
    """Of so many seeds a few pairs agree in any window, and torch's CPU generator sees the lowest alone."""
    seen = seeds >> window & 0xFFFFFFFF
    order = np.argsort(seen, kind="stable")
    alike = np.flatnonzero(np.diff(seen[order]) == 0)
    assert len(alike)
    for index in alike:
        one, other = (normal(int(seeds[order[index + step]]), 64) for step in (0, 1))
        assert not (one == other).any()


def test_streams_of_one_low_half_all_begin_in_their_own_way() -> None:
    firsts = np.array([normal(seed, 4).numpy() for seed in range(0, 2**32 * 1000, 2**32)])
    assert len(np.unique(firsts, axis=0)) == len(firsts)


@given(st.integers(0, 2**63 - 1), st.integers(0, 70_000))
def test_a_larger_shape_begins_with_a_smaller_ones_numbers(seed: int, size: int) -> None:
    assert torch.equal(normal(seed, 70_001)[:size], normal(seed, size))
    assert torch.equal(uniform(seed, 301)[: size % 300], uniform(seed, size % 300))


def test_noise_is_float32_in_its_shape_and_repeats() -> None:
    first, second = normal(11, 3, 5), normal(11, 3, 5)
    assert first.dtype == torch.float32
    assert torch.equal(first, second)
    assert torch.equal(first.flatten(), normal(11, 15))
    assert not torch.equal(first, normal(12, 3, 5))
    assert normal(11).shape == ()
    assert normal(11, 0, 4).shape == (0, 4)


def test_even_numbers_fill_the_interval_and_never_reach_one() -> None:
    drawn = uniform(5, 1 << 20).numpy().astype(float)
    assert stats.kstest(drawn, "uniform").pvalue > 1e-4
    assert drawn.min() >= 0
    assert drawn.max() < 1


@given(st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_an_order_holds_everything_once(seed: int, count: int) -> None:
    assert sorted(permutation(seed, count)) == list(range(count))


def test_every_order_is_as_likely() -> None:
    orders = [tuple(permutation(derive("order", n), 4)) for n in range(24_000)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-4
