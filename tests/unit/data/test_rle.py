"""Run lengths, bound by bound: what is a size, a run, a character, and what says that it is none."""

import math

import numpy as np
import pytest

from rc_grpo.data.rle import Rle

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


def test_a_size_may_be_written_as_text() -> None:
    assert Rle.parse({"size": ["3", "4"], "counts": "0<"}) == Rle(3, 4, "0<")


def test_a_mask_of_one_pixel_is_one() -> None:
    assert Rle.parse({"size": [1, 1], "counts": [0, 1]}).decode().tolist() == [[True]]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"counts": [1]}, "an RLE mask is .*KeyError"),
        ({"size": [1, 1]}, "an RLE mask is .*KeyError"),
        ({"size": None, "counts": [1]}, "an RLE mask is .*TypeError"),
        ({"size": [1, 1], "counts": 1}, "an RLE mask is .*TypeError"),
        ({"size": [1, 1], "counts": [None]}, "an RLE mask is .*TypeError"),
        ({"size": [1, 1, 1], "counts": [1]}, "an RLE mask is .*ValueError"),
        ({"size": ["a", 1], "counts": [1]}, "an RLE mask is .*ValueError"),
        ({"size": [1, 1], "counts": ["a"]}, "an RLE mask is .*ValueError"),
        ({"size": [1, 1], "counts": b"\xff"}, "an RLE mask is .*UnicodeDecodeError"),
        ({"size": [1, 1], "counts": [math.inf]}, "an RLE mask is .*OverflowError"),
        ({"size": [math.inf, 1], "counts": [1]}, "an RLE mask is .*OverflowError"),
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
    with pytest.raises(ValueError, match=f"add up to {sum(counts)}, not to 2x3"):
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
