"""The same cases as the script's, without its traps."""

import math

import numpy as np
import pytest

from rc_grpo.evaluation.compbench import corrected
from rc_grpo.evaluation.lpips import Lpips

from .conftest import SIDE, KnownClip, frames, masked

HALF = masked(slice(None), slice(0, SIDE // 2))


@pytest.mark.parametrize("level", [1, 255])
@pytest.mark.parametrize("rows", [slice(0), slice(0, 32), slice(0, 48), slice(0, 63)])
def test_psnr_does_not_depend_on_the_masks_size_or_levels(rows, level):
    scores = corrected.measure(frames(100, 151, masked(rows, slice(None), level)), None, None, None)
    assert scores.psnr == pytest.approx(-10 * math.log10(0.04), abs=1e-4)


def test_an_identical_background_has_the_stated_finite_psnr():
    edited = np.where(HALF[..., None] > 0, np.uint8(7), np.uint8(100)).repeat(3, axis=2)
    scores = corrected.measure(frames(100, edited, HALF), None, None, None)
    assert scores.psnr == corrected.PSNR_CAP == 60
    assert scores.ssim == pytest.approx(1.0)


def test_one_changed_pixel_of_an_otherwise_identical_background_does_not_exceed_the_cap():
    edited = np.full((SIDE, SIDE, 3), 100, np.uint8)
    edited[-1, -1, 0] = 101
    assert corrected.measure(frames(100, edited), None, None, None).psnr == 60


def test_ssim_is_the_backgrounds_whatever_happens_inside():
    luminance = (2 * (100 / 255) * (151 / 255) + 1e-4) / ((100 / 255) ** 2 + (151 / 255) ** 2 + 1e-4)
    edited = np.full((SIDE, SIDE, 3), 151, np.uint8)
    edited[HALF > 0] = np.random.default_rng(0).integers(0, 256, (SIDE * SIDE // 2, 3))
    scores = corrected.measure(frames(100, edited, HALF), None, None, None)
    assert scores.ssim == pytest.approx(luminance, abs=1e-4)


def test_without_a_background_its_metrics_are_left_out_not_0():
    everywhere = masked(slice(None), slice(None))
    scores = corrected.measure(frames(100, 151, everywhere), None, None, Lpips(lambda a, b: (a - b).abs().mean()))
    assert math.isnan(scores.psnr)
    assert math.isnan(scores.ssim)
    assert math.isnan(scores.lpips)


def test_ssim_is_left_out_where_no_window_fits_the_background():
    scores = corrected.measure(frames(100, 151, masked(slice(4, 60), slice(4, 60))), None, None, None)
    assert math.isnan(scores.ssim)
    assert scores.psnr == pytest.approx(-10 * math.log10(0.04), abs=1e-4)


@pytest.mark.parametrize("rows", [slice(0), slice(0, 32), slice(0, 48)])
def test_lpips_is_a_mean_over_the_background(rows):
    edited = np.full((SIDE, SIDE, 3), 151, np.uint8)
    edited[rows] = 255
    mask = masked(rows, slice(None))
    scores = corrected.measure(frames(100, edited, mask), None, None, Lpips(lambda a, b: (a - b).abs().mean()))
    assert scores.lpips == pytest.approx(0.4, abs=1e-5)  # 0.2 of the range, between -1 and 1.


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [
        (slice(4, 12), slice(6, 20), (6, 4, 20, 12)),
        (slice(0, 8), slice(0, 8), (0, 0, 8, 8)),
        (slice(56, 64), slice(60, 64), (60, 56, 64, 64)),
        (slice(5, 6), slice(0, 9), (0, 5, 9, 6)),
        (slice(63, 64), slice(63, 64), (63, 63, 64, 64)),
        (slice(0), slice(0), None),
    ],
)
def test_the_box_is_tight_and_whole(rows, columns, box):
    assert corrected.box(masked(rows, columns) > 0) == box


def test_levels_of_a_grey_mask_are_split_in_the_middle():
    mask = np.array([[0, 1, 127], [128, 200, 255]], np.uint8)
    assert corrected.inside_of(mask).tolist() == [[False, False, False], [True, True, True]]
    assert corrected.inside_of(np.array([[0, 1]], np.uint8)).tolist() == [[False, True]]
    assert corrected.inside_of(np.array([[1, 1]], np.uint8)).tolist() == [[True, True]]
    assert corrected.inside_of(np.array([[0, 0]], np.uint8)).tolist() == [[False, False]]


def test_an_empty_mask_leaves_the_local_metrics_out_not_0():
    scores = corrected.measure(frames(0, 0, masked(), 0), "a", KnownClip(), None)
    assert math.isnan(scores.lc_i)
    assert math.isnan(scores.lc_t)


@pytest.mark.parametrize("caption", [None, "", " | "])
def test_without_a_caption_lc_t_is_left_out(caption):
    scores = corrected.measure(frames(0, 0, HALF, 0), caption, KnownClip(), None)
    assert math.isnan(scores.lc_t)
    assert scores.lc_i == pytest.approx(0.6)


def test_several_captions_are_averaged():
    clip = KnownClip(texts={"a": (0.28, 0.96), "b": (0.96, 0.28)})
    assert corrected.measure(frames(0, 0, HALF, 0), "a|b", clip, None).lc_t == pytest.approx(62)
