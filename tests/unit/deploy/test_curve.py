import math

from hypothesis import given
from hypothesis import strategies as st

from deploy.watching.curve import curve


def test_a_rising_reward_rises_from_the_lowest_block_to_the_highest() -> None:
    assert curve([0.0, 1 / 7, 2 / 7, 3 / 7, 4 / 7, 5 / 7, 6 / 7, 1.0], 40) == "0.000 ▁▂▃▄▅▆▇█ 1.000"


def test_a_long_run_fits_its_line_by_averages() -> None:
    assert curve([0.0, 0.2, 0.4, 0.6, 1.0, 1.0], 3) == "0.100 ▁▄█ 1.000"


def test_an_update_without_a_reward_leaves_its_place_empty() -> None:
    assert curve([0.5, math.nan, 0.7], 10) == "0.500 ▁ █ 0.700"
    assert curve([math.nan], 10) == curve([], 10) == ""


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=200), st.integers(1, 60))
def test_no_curve_is_wider_than_asked_for(values: list[float], width: int) -> None:
    drawn = curve(values, width)
    assert len(drawn) <= width + len("0.000  0.000")
