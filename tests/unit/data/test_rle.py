"""Run lengths, bound by bound: what is a size, a run, a character, and what says that it is none."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from rc_grpo.data.rle import Rle

from .conftest import reason_of
from .test_masks import compressed

BLOCK = np.array([[False, True, True, False], [False, True, False, False], [False, False, False, False]])
RUNS = [3, 2, 1, 1, 5]


@pytest.mark.parametrize(
    "counts", [RUNS, tuple(map(float, RUNS)), list(map(str, RUNS)), compressed(RUNS), compressed(RUNS).encode()]
)
def test_runs_go_down_the_columns_whether_as_numbers_string_or_bytes(counts: object) -> None:
    mask = Rle.parse({"size": [3, 4], "counts": counts})
    assert (mask.height, mask.width) == (3, 4)
    assert mask.decode().dtype == np.bool_
    np.testing.assert_array_equal(mask.decode(), BLOCK)


@given(st.integers(0, 999), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_what_cocos_own_tools_write_is_what_was_drawn(seed: int, height: int, width: int, share: float) -> None:
    inside = np.random.default_rng(seed).random((height, width)) < share
    written = coco.encode(np.asfortranarray(inside.astype(np.uint8)))
    np.testing.assert_array_equal(Rle.parse(written).decode(), inside)


def test_a_size_may_be_written_as_text() -> None:
    assert Rle.parse({"size": ["3", "4"], "counts": "0<"}) == Rle(3, 4, "0<")


def test_a_mask_of_one_pixel_is_one() -> None:
    assert Rle.parse({"size": [1, 1], "counts": [0, 1]}).decode().tolist() == [[True]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"counts": [1]}, "an RLE mask is .*it has no 'size'"),
        ({"size": [1, 1]}, "an RLE mask is .*it has no 'counts'"),
        ({"size": None, "counts": [1]}, "an RLE mask is .*its size is None, not two numbers"),
        ({"size": "64", "counts": [1]}, "an RLE mask is .*its size is '64', not two numbers"),
        ({"size": 64, "counts": [1]}, "an RLE mask is .*its size is 64, not two numbers"),
        ({"size": {"h": 1, "w": 1}, "counts": [1]}, "an RLE mask is .*not two numbers"),
        ({"size": [1, 1], "counts": 1}, "an RLE mask is .*its counts are 1"),
        ({"size": [1, 1], "counts": {"0": 1}}, "an RLE mask is .*its counts are"),
        ({"size": [1, 1], "counts": [None]}, "an RLE mask is .*None in its counts"),
        ({"size": [1, 1], "counts": [[1]]}, r"an RLE mask is .*\[1\] in its counts"),
        ({"size": [1, 1, 1], "counts": [1]}, "an RLE mask is .*not two numbers"),
        ({"size": ["a", 1], "counts": [1]}, "an RLE mask is .*'a' in its size"),
        ({"size": [True, True], "counts": [1]}, "an RLE mask is .*True in its size"),
        ({"size": [1.5, 1], "counts": [1]}, "an RLE mask is .*1.5 in its size"),
        ({"size": [1, 1], "counts": ["a"]}, "an RLE mask is .*'a' in its counts"),
        ({"size": [1, 1], "counts": ["1 3 5 7"]}, "an RLE mask is .*'1 3 5 7' in its counts"),
        ({"size": [1, 1], "counts": ["9" * 5000]}, "an RLE mask is .*in its counts"),
        ({"size": [1, 1], "counts": [True]}, "an RLE mask is .*True in its counts"),
        ({"size": [1, 1], "counts": [0.5, 0.5]}, "an RLE mask is .*0.5 in its counts"),
        ({"size": [1, 1], "counts": [math.inf]}, "an RLE mask is .*inf in its counts"),
        ({"size": [1, 1], "counts": [math.nan]}, "an RLE mask is .*nan in its counts"),
        ({"size": [1, 1], "counts": [1e30]}, "an RLE mask is .*1e[+]30 in its counts"),
        ({"size": [1, 1], "counts": [10**30]}, "an RLE mask is .* in its counts"),
        ({"size": [math.inf, 1], "counts": [1]}, "an RLE mask is .*inf in its size"),
        ({"size": [0, 2], "counts": []}, "an RLE mask of size 0x2"),
        ({"size": [2, 0], "counts": []}, "an RLE mask of size 2x0"),
        ({"size": [-1, -2], "counts": [2]}, "an RLE mask of size -1x-2"),
    ],
)
def test_what_is_no_run_length_encoding_is_refused_as_bad_data(value: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Rle.parse(value)


@pytest.mark.parametrize("counts", [(3, 2), (3, 4), (-1, 7), (), (6, 1), (10**30,), (2**63 - 1, 2**63 - 1, 8)])
def test_runs_that_do_not_fill_the_mask_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"add up to {sum(counts)}"):
        Rle(2, 3, counts).decode()


def test_runs_of_no_length_are_runs() -> None:
    assert Rle(2, 2, (0, 2, 0, 0, 2)).decode().tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("character", ["/", "p", "~", " "])
def test_characters_outside_the_alphabet_are_named(character: str) -> None:
    with pytest.raises(ValueError, match=f"character {character!r}"):
        Rle(1, 1, "1" + character).decode()


@pytest.mark.parametrize("counts", ["o", "P", "1o"])
def test_a_string_that_ends_within_a_number_is_cut_off(counts: str) -> None:
    with pytest.raises(ValueError, match="cut off"):
        Rle(1, 1, counts).decode()


def test_a_long_run_takes_several_characters_of_five_bits_the_lowest_first() -> None:
    # By hand: 70000 = 16 + 32 * (11 + 32 * (4 + 32 * 2)), and 30000 = 16 + 32 * (9 + 32 * (29 + 32 * 0)).
    flat = Rle(250, 400, "`[T2`Ym0").decode().T.reshape(-1)
    assert np.flatnonzero(flat).tolist() == list(range(70_000, 100_000))


def test_a_run_that_is_much_shorter_than_the_one_before_the_last_is_a_negative_number() -> None:
    flat = Rle(250, 400, compressed([70_000, 50, 29_000, 20, 930])).decode().T.reshape(-1)
    assert np.flatnonzero(flat).tolist() == [*range(70_000, 70_050), *range(99_050, 99_070)]


@pytest.mark.parametrize("counts", ["o" * 100_000, "o" * 12 + "0", b"\xff\xfe", "ü", "1 3", " "])
def test_strings_that_overflow_or_are_none_of_cocos_are_refused_at_once(counts: str | bytes) -> None:
    with pytest.raises(ValueError, match="counts") as error:
        Rle.parse({"size": [9, 9], "counts": counts}).decode()
    assert len(str(error.value)) < 200


def test_runs_that_fill_a_mask_beyond_any_image_are_refused_before_they_take_memory() -> None:
    with pytest.raises(ValueError, match="1000000x1000000, more than"):
        Rle(10**6, 10**6, (0, 10**12)).decode()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=6))
def test_whatever_stands_for_size_or_counts_is_a_mask_or_a_short_reason(value: object) -> None:
    for cell in ({"size": value, "counts": [0, 1]}, {"size": [1, 1], "counts": value}):
        reason = reason_of(lambda cell=cell: Rle.parse(cell).decode())
        assert reason is None or 0 < len(reason) < 400
