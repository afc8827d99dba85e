"""The script's behaviour, worked out by hand: traps included."""

import math

import numpy as np
import pytest

from rc_grpo.evaluation.compbench import official
from rc_grpo.evaluation.lpips import Lpips

from .conftest import SIDE, KnownClip, frames, masked

HALF = masked(slice(None), slice(0, SIDE // 2))
STEP = 51
"""Levels of difference: exactly 0.2 of the range, so a squared error of 0.04."""


def ssim_along_rows(source, edited):
    """SSIM of two images that vary from column to column alone: there the window's two dimensions come apart."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(row):
        padded = np.pad(row, 5, mode="reflect")
        return np.array([padded[i : i + 11] @ window for i in range(len(row))])

    x, y = source, edited
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y, cov = (
        smooth(a * b) - c * d for a, b, c, d in ((x, x, mean_x, mean_x), (y, y, mean_y, mean_y), (x, y, mean_x, mean_y))
    )
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (masked(), 0.04),
        (HALF, 0.02),
        (masked(slice(0, 48), slice(None)), 0.01),
    ],
)
def test_psnr_counts_masked_pixels_as_identical_so_it_grows_with_the_mask(mask, error):
    scores = official.measure(frames(100, 100 + STEP, mask), None, None, None)
    assert scores.psnr == pytest.approx(10 * math.log10(1 / error), abs=1e-4)


def test_three_quarters_masked_are_six_decibels():
    quarter_left = official.measure(frames(100, 151, masked(slice(0, 48), slice(None))), None, None, None)
    nothing_masked = official.measure(frames(100, 151), None, None, None)
    assert quarter_left.psnr - nothing_masked.psnr == pytest.approx(6.0206, abs=1e-3)


def test_an_identical_background_has_infinite_psnr_and_an_ssim_of_1():
    edited = np.where(HALF[..., None] > 0, np.uint8(7), np.uint8(100)).repeat(3, axis=2)
    scores = official.measure(frames(100, edited, HALF), None, None, None)
    assert scores.psnr == math.inf
    assert scores.ssim == pytest.approx(1.0)


def test_a_mask_of_0_and_1_hides_next_to_nothing():
    scores = official.measure(frames(100, 151, masked(slice(None), slice(None), level=1)), None, None, None)
    assert scores.psnr == pytest.approx(-10 * math.log10(0.04 * (254 / 255) ** 2), abs=1e-3)


def test_grey_levels_of_a_mask_are_weights():
    scores = official.measure(frames(100, 151, masked(slice(None), slice(None), level=51)), None, None, None)
    assert scores.psnr == pytest.approx(-10 * math.log10(0.04 * 0.8**2), abs=1e-3)


def test_ssim_is_that_of_the_blackened_frames():
    columns = np.arange(SIDE) < SIDE // 2
    source, edited = (np.where(columns, 0.0, level / 255) for level in (100, 151))
    scores = official.measure(frames(100, 151, HALF), None, None, None)
    assert scores.ssim == pytest.approx(ssim_along_rows(source, edited), abs=1e-4)


def test_lpips_sees_the_blackened_frames_between_minus_1_and_1():
    seen = []

    def net(edited, source):
        seen.extend((edited, source))
        return (edited - source).abs().mean()

    scores = official.measure(frames(0, 255, HALF), None, None, Lpips(net))
    assert scores.lpips == pytest.approx(1.0)  # Half of the frame differs by 2.
    edited, source = seen
    assert set(source.unique().tolist()) == {-1.0}
    assert edited[0, 0, 0].tolist() == [-1.0] * 32 + [1.0] * 32


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        (slice(4, 12), slice(6, 20), (6, 4, 19, 11)),
        (slice(0, 8), slice(0, 8), (0, 0, 7, 7)),
        (slice(56, 64), slice(60, 64), (60, 56, 63, 63)),
        (slice(None), slice(None), (0, 0, 63, 63)),
        (slice(5, 7), slice(5, 7), (5, 5, 6, 6)),
        (slice(5, 6), slice(0, 9), None),
        (slice(0, 9), slice(5, 6), None),
        (slice(0), slice(0), None),
    ],
    ids=["inside", "upper left corner", "lower right corner", "all", "2x2", "one row", "one column", "empty"],
)
@pytest.mark.parametrize("level", [1, 255])
def test_the_box_loses_its_last_row_and_column(rows, columns, box, level):
    assert official.box(masked(rows, columns, level)) == box


def test_crops_are_the_box_of_edit_and_target():
    clip = KnownClip()
    edited, target = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    official.measure(frames(0, edited, masked(slice(4, 12), slice(6, 20)), target), "a", clip, None)
    np.testing.assert_array_equal(clip.crops[0], edited[4:11, 6:19])
    np.testing.assert_array_equal(clip.crops[1], target[4:11, 6:19])


@pytest.mark.parametrize(
    ("caption", "asked", "lc_t"),
    [
        ("a", ["a"], 28.0),
        ("a|b", ["a", "b"], (28 + 96) / 2),
        ("a|opposite", ["a", "opposite"], (28 + 0) / 2),
        ("a||b", ["a", "b"], 62.0),
        ("opposite", ["opposite"], 0.0),
        (None, [" "], 0.0),
        ("", [" "], 0.0),
    ],
)
def test_lc_t_is_the_mean_over_captions_of_the_cosine_from_0_up(caption, asked, lc_t):
    texts = {"a": (0.28, 0.96), "b": (0.96, 0.28), "opposite": (-1.0, 0.0)}
    clip = KnownClip(texts=texts)
    scores = official.measure(frames(0, 0, HALF, 0), caption, clip, None)
    assert clip.asked == asked
    assert scores.lc_t == pytest.approx(lc_t)
    assert scores.lc_i == pytest.approx(0.6)


@pytest.mark.parametrize("mask", [masked(), masked(slice(5, 6), slice(None))])
def test_an_empty_box_scores_0(mask):
    scores = official.measure(frames(0, 0, mask, 0), "a", KnownClip(), None)
    assert (scores.lc_i, scores.lc_t) == (0, 0)


def test_without_a_true_result_lc_i_is_left_out():
    scores = official.measure(frames(0, 0, HALF), "a", KnownClip(texts={"a": (0.5, 0.5)}), None)
    assert math.isnan(scores.lc_i)
    assert scores.lc_t == pytest.approx(50)
