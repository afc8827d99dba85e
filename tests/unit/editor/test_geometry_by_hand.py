"""Sizes, coverage and masks that were worked out by hand, on grids that are not square."""

import logging

import numpy as np
import pytest
from PIL import Image

from rc_grpo.config import MaskConfig
from rc_grpo.editor import geometry
from rc_grpo.editor.geometry import EmptyMaskError, binary_mask, editing_size, resize_image, resize_mask, token_mask
from rc_grpo.images import encode_png


@pytest.mark.parametrize(
    ("source", "resolution", "multiple", "size"),
    [
        ((1024, 1024), 512, 16, (512, 512)),
        ((480, 640), 512, 16, (448, 592)),
        ((640, 480), 512, 16, (592, 448)),
        ((1080, 1920), 1024, 16, (768, 1360)),
        ((1080, 1920), 1024, 32, (768, 1376)),
        ((100, 90), 128, 16, (128, 128)),
        ((1, 10000), 512, 16, (16, 51200)),
    ],
)
def test_sides_are_rounded_to_the_nearest_multiple_and_never_to_nothing(
    source: tuple[int, int], resolution: int, multiple: int, size: tuple[int, int]
) -> None:
    assert editing_size(*source, resolution, multiple) == size


def test_an_image_is_resized_by_lanczos_to_height_and_width_and_one_that_fits_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    assert resize_image(image, 24, 20) is image
    resized = resize_image(image, 20, 24)
    assert resized.shape == (20, 24, 3)
    np.testing.assert_array_equal(
        resized, np.asarray(Image.fromarray(image).resize((24, 20), Image.Resampling.LANCZOS))
    )


@pytest.mark.parametrize(
    ("levels", "inside"),
    [
        ([0, 1, 255], [False, False, True]),
        ([0, 1, 2], None),
        ([1, 255, 255], [False, True, True]),
        ([0, 1, 0], [False, True, False]),
        ([0, 255, 0], [False, True, False]),
        ([1, 1, 1], [True, True, True]),
        ([254, 127, 128], [True, False, True]),
    ],
)
def test_only_files_of_two_levels_that_mean_it_are_taken_as_they_are(
    levels: list[int], inside: list[bool] | None
) -> None:
    data = encode_png(np.array([levels], dtype=np.uint8))
    if inside is None:
        with pytest.raises(EmptyMaskError):
            binary_mask(data)
    else:
        assert binary_mask(data).tolist() == [inside]


def test_grey_masks_are_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    geometry._warn_about_levels.cache_clear()
    with caplog.at_level(logging.WARNING):
        binary_mask(encode_png(np.array([[0, 255]], dtype=np.uint8)))
        assert not caplog.records
        for _ in range(2):
            binary_mask(encode_png(np.array([[0, 100, 200]], dtype=np.uint8)))
    assert len(caplog.records) == 1
    assert "thresholded at half of their range, 128 of 255" in caplog.text


def test_coverage_is_each_new_pixels_share_of_old_ones() -> None:
    inside = np.zeros((4, 6), dtype=bool)
    inside[0, :3] = True
    inside[3, 5] = True
    coverage = resize_mask(inside, 2, 3)
    np.testing.assert_allclose(coverage, [[0.5, 0.25, 0.0], [0.0, 0.0, 0.25]])
    assert coverage.dtype == np.float32
    enlarged = resize_mask(np.eye(2, dtype=bool), 7, 5)
    assert enlarged.shape == (7, 5)
    assert 0.0 <= enlarged.min() <= enlarged.max() <= 1.0


def block(rows: slice, columns: slice) -> np.ndarray:
    inside = np.zeros((48, 64), dtype=bool)
    inside[rows, columns] = True
    return inside


def grid(*tokens: tuple[int, int]) -> list[list[int]]:
    return sorted([row, column] for row, column in tokens)


def tokens_of(inside: np.ndarray, **config: float) -> list[list[int]]:
    mask = token_mask(inside, 48, 64, 16, MaskConfig(**config))  # type: ignore[arg-type]
    assert mask.dtype.is_floating_point is False
    return mask.view(3, 4).nonzero().tolist()  # type: ignore[no-any-return]


def test_tokens_are_counted_row_by_row() -> None:
    inside = block(slice(20, 21), slice(50, 51))
    assert token_mask(inside, 48, 64, 16, MaskConfig()).nonzero().tolist() == [[7]]
    assert tokens_of(inside) == grid((1, 3))


def test_a_share_that_equals_the_threshold_is_not_more_than_it() -> None:
    half = block(slice(16, 32), slice(16, 24))
    half[0, 0] = half[:16, 48:] = True
    assert tokens_of(half, threshold=0.49) == grid((0, 3), (1, 1))
    assert tokens_of(half, threshold=0.5) == grid((0, 3))
    with pytest.raises(EmptyMaskError, match="100%"):
        tokens_of(half, threshold=1.0)


@pytest.mark.parametrize(
    ("dilation", "tokens"),
    [
        (0, grid((0, 0))),
        (1, grid((0, 0), (0, 1), (1, 0), (1, 1))),
        (2, [[row, column] for row in range(3) for column in range(3)]),
        (3, [[row, column] for row in range(3) for column in range(4)]),
    ],
)
def test_the_region_grows_by_whole_tokens_on_every_side(dilation: int, tokens: list[list[int]]) -> None:
    assert tokens_of(block(slice(2, 4), slice(5, 6)), dilation=dilation) == tokens


def test_the_region_grows_after_the_threshold() -> None:
    almost = block(slice(0, 16), slice(0, 6))
    almost[16:32, 32:48] = True
    assert tokens_of(almost, threshold=0.4, dilation=1) == [[row, column] for row in range(3) for column in (1, 2, 3)]
