"""Scattered pixels become regions: an oracle of single distances, in place of distance transforms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rc_grpo.masks.shaping import Shape, grown, to_size, without_small


@st.composite
def regions(draw: st.DrawFn) -> NDArray[np.bool_]:
    height, width = draw(st.integers(3, 16)), draw(st.integers(3, 16))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    return np.array(bits).reshape(height, width)


@settings(max_examples=40, deadline=None)
@given(regions(), st.floats(1, 6))
def test_what_is_within_reach_of_a_region_belongs_to_it(region: NDArray[np.bool_], radius: float) -> None:
    there = np.argwhere(region)
    found = grown(region, radius)
    for place in np.ndindex(region.shape):
        near = len(there) > 0 and (np.hypot(*(there - place).T) <= radius).any()
        assert found[place] == near


@settings(max_examples=40, deadline=None)
@given(regions())
def test_tidying_a_region_leaves_none_of_it_out_but_specks(region: NDArray[np.bool_]) -> None:
    tidied = Shape(close=0.1, hole=0.2, speck=0.0, margin=0.1).of(region)
    assert (tidied | ~region).all()
    assert tidied.any() == region.any()


def test_parts_are_dropped_by_their_own_size_diagonal_neighbours_being_one() -> None:
    region = np.zeros((9, 9), dtype=bool)
    region[1, 1] = region[2, 2] = region[3, 3] = True
    region[7, 7] = True
    assert without_small(region, 2).sum() == 3
    assert not without_small(region, 4).any()


def test_a_small_hole_is_filled_and_a_large_one_is_left() -> None:
    region = np.zeros((60, 60), dtype=bool)
    region[5:55, 5:55] = True
    region[10:14, 10:14] = False
    region[20:50, 20:50] = False
    tidied = Shape(close=0.0, margin=0.0).of(region)
    assert tidied[11, 11]
    assert not tidied[35, 35]


def test_a_gap_is_closed_and_the_edge_of_the_image_eats_nothing() -> None:
    region = np.zeros((64, 64), dtype=bool)
    region[0:30, 0:20] = True
    region[0:30, 22:40] = True
    tidied = Shape(close=1 / 32, hole=0.0, margin=0.0).of(region)
    assert tidied[:28, :40].all()
    assert (tidied & region).sum() == region.sum()


@pytest.mark.parametrize("size", [(20, 30), (80, 120), (41, 61)])
def test_a_region_at_another_size_covers_the_same_share(size: tuple[int, int]) -> None:
    region = np.zeros((40, 60), dtype=bool)
    region[10:30, 15:45] = True
    assert to_size(region, *size).mean() == pytest.approx(0.25, abs=0.03)
