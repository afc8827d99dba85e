import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.editor.fast.rounding import round_stochastically
from rc_grpo.seeds import normal

NARROW = [torch.bfloat16, torch.float8_e4m3fn]


SEED = 0


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_on_the_grid_stays_what_it_is(dtype: torch.dtype) -> None:
    x = normal(SEED, 4096).to(dtype).float()
    for seed in range(5):
        assert torch.equal(round_stochastically(x, dtype, seed).float(), x)


@pytest.mark.parametrize("dtype", NARROW)
@given(value=st.floats(-400, 400, width=32, allow_subnormal=False))
def test_the_result_is_one_of_the_two_neighbours(dtype: torch.dtype, value: float) -> None:
    x = torch.full((256,), value)
    rounded = round_stochastically(x, dtype, SEED).float()
    nearest = x.to(dtype).float()
    assert len(rounded.unique()) <= 2
    assert rounded.min() <= value <= rounded.max() or len(rounded.unique()) == 1
    # The spacing at a value is at most twice its distance to the nearest neighbour plus the nearest's own spacing.
    info = torch.finfo(dtype)
    spacing = max(max(abs(value), info.smallest_normal) * info.eps, torch.finfo(torch.float32).smallest_normal)
    assert (rounded - nearest).abs().max() <= 1.01 * spacing


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_change_below_the_grid_arrives_in_the_mean(dtype: torch.dtype, sign: int) -> None:
    base = torch.full((200_000,), sign * 1.0)
    change = torch.finfo(dtype).eps / 20
    assert torch.equal((base + change).to(dtype), base.to(dtype))
    rounded = round_stochastically(base + change, dtype, SEED).float()
    assert float((rounded - base).mean()) == pytest.approx(change, rel=0.1)


def test_the_same_seed_gives_the_same_bits_and_one_of_other_high_bits_gives_others() -> None:
    x = normal(SEED, 1000)
    first, again = (round_stochastically(x, torch.bfloat16, 3) for _ in range(2))
    assert torch.equal(first, again)
    for other in (4, 3 + 2**32, 3 + 2**62):
        assert not torch.equal(first, round_stochastically(x, torch.bfloat16, other))


def test_float32_is_left_alone_and_what_is_beyond_the_range_is_held_at_its_end() -> None:
    x = torch.randn(10)
    assert round_stochastically(x, torch.float32, SEED) is x
    held = round_stochastically(torch.tensor([1e4, -1e4]), torch.float8_e4m3fn, SEED)
    assert held.float().tolist() == [448.0, -448.0]


@pytest.mark.parametrize(
    ("dtype", "spacing", "largest_of_it"),
    [
        (torch.bfloat16, 2.0**-7, 2 - 2.0**-7),
        (torch.float8_e4m3fn, 2.0**-3, 2 - 2.0**-3),
    ],
)
@pytest.mark.parametrize("scale", [1.0, -1.0, 2.0**-4, 64.0])
def test_the_neighbours_are_one_spacing_apart_up_to_the_power_of_two(
    dtype: torch.dtype, spacing: float, largest_of_it: float, scale: float
) -> None:
    for start in (1.0, largest_of_it):
        x = torch.full((4096,), (start + 0.25 * spacing) * scale)
        rounded = round_stochastically(x, dtype, SEED).float() / scale
        assert sorted(set(rounded.tolist())) == [start, start + spacing]
        assert float((rounded > start).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_below_the_smallest_normal_number_the_spacing_stays() -> None:
    x = torch.full((4096,), 1.25 * 2.0**-9)
    rounded = round_stochastically(x, torch.float8_e4m3fn, SEED).float()
    assert sorted(set(rounded.tolist())) == [2.0**-9, 2.0**-8]
    assert float(rounded.mean()) == pytest.approx(1.25 * 2.0**-9, rel=0.03)


@pytest.mark.parametrize("dtype", NARROW)
def test_nothing_stays_nothing_and_the_smallest_numbers_stay_finite(dtype: torch.dtype) -> None:
    assert not round_stochastically(torch.zeros(64), dtype, SEED).float().any()
    tiny = torch.full((4096,), 2.0**-124 * 1.5)
    assert round_stochastically(tiny, dtype, SEED).float().abs().max() <= 2.0**-9
    if dtype == torch.bfloat16:
        assert torch.equal(round_stochastically(tiny, dtype, SEED).float(), tiny)


@pytest.mark.parametrize("dtype", NARROW)
def test_what_is_on_the_grid_stays_even_if_the_draw_is_zero(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    x = torch.tensor([0.0, 1.0, -1.5, 448.0, -0.25])
    assert torch.equal(round_stochastically(x, dtype, SEED).float(), x)


def test_between_the_largest_number_and_what_would_be_the_next_it_is_the_largest() -> None:
    held = round_stochastically(torch.tensor([460.0, -460.0] * 64), torch.float8_e4m3fn, SEED).float()
    assert set(held.tolist()) == {448.0, -448.0}
