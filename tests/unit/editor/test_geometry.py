import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.config import MaskConfig
from rc_grpo.editor.geometry import EmptyMaskError, binary_mask, editing_size, mask_remark, resize_mask, token_mask
from rc_grpo.images import MAX_ASPECT, encode_png


def mask_of(*points: tuple[int, int], size: int = 64) -> np.ndarray:
    inside = np.zeros((size, size), dtype=bool)
    for row, column in points:
        inside[row, column] = True
    return inside


@given(st.integers(16, 3000), st.integers(16, 3000), st.sampled_from([256, 512, 1024]))
def test_the_editing_size_keeps_area_and_aspect_and_fits_tokens(height: int, width: int, resolution: int) -> None:
    new_height, new_width = editing_size(height, width, resolution, 16)
    assert new_height % 16 == new_width % 16 == 0
    if 0.25 < height / width < 4:
        assert abs(new_height * new_width / resolution**2 - 1) < 0.35
        assert abs(np.log((new_height / new_width) / (height / width))) < 0.35


def test_one_pixel_is_enough_for_its_token_and_only_for_that() -> None:
    tokens = token_mask(mask_of((17, 40)), 64, 64, 16, MaskConfig())
    assert tokens.reshape(4, 4).nonzero().tolist() == [[1, 2]]


def test_no_region_is_too_small_to_survive_the_resize() -> None:
    tokens = token_mask(mask_of((1000, 3), size=2048), 64, 64, 16, MaskConfig())
    assert tokens.sum() >= 1


def test_a_threshold_asks_for_more_than_its_share_and_dilation_grows_the_region() -> None:
    inside = np.zeros((64, 64), dtype=bool)
    inside[16:32, 16:24] = True
    assert token_mask(inside, 64, 64, 16, MaskConfig(threshold=0.4)).sum() == 1
    with pytest.raises(EmptyMaskError, match="threshold"):
        token_mask(inside, 64, 64, 16, MaskConfig(threshold=0.6))
    assert token_mask(inside, 64, 64, 16, MaskConfig(dilation=1)).sum() == 9


def test_a_full_mask_is_legal() -> None:
    assert token_mask(np.ones((48, 48), dtype=bool), 48, 48, 16, MaskConfig()).all()


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 1)])
def test_binary_files_are_taken_as_they_are(low: int, high: int) -> None:
    levels = np.where(mask_of((1, 2), (3, 4)), high, low).astype(np.uint8)
    assert binary_mask(encode_png(levels)).sum() == 2
    assert binary_mask(encode_png(levels), invert=True).sum() == 64 * 64 - 2


def test_grey_masks_are_cut_at_half_their_range() -> None:
    levels = np.array([[0, 100, 127, 128, 200, 255]], dtype=np.uint8)
    assert binary_mask(encode_png(levels)).tolist() == [[False, False, False, True, True, True]]


def test_an_empty_mask_is_an_error() -> None:
    empty = encode_png(np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(EmptyMaskError):
        binary_mask(empty)
    with pytest.raises(EmptyMaskError, match="inversion"):
        binary_mask(encode_png(np.full((8, 8), 255, dtype=np.uint8)), invert=True)


def test_coverage_is_the_share_of_pixels() -> None:
    inside = np.zeros((64, 64), dtype=bool)
    inside[:, :32] = True
    assert resize_mask(inside, 16, 16).mean() == pytest.approx(0.5)


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([128, 512, 1024]))
def test_no_image_that_is_decoded_is_edited_at_more_than_some_twice_its_area(
    height: int, width: int, resolution: int
) -> None:
    if max(height, width) <= MAX_ASPECT * min(height, width):
        new_height, new_width = editing_size(height, width, resolution, 16)
        assert new_height * new_width < 2.1 * resolution**2


def test_a_mask_of_the_whole_image_and_one_below_a_token_are_remarked() -> None:
    assert mask_remark(np.ones((64, 64), dtype=bool), 128, 16) == (
        "the mask covers the whole image, so that nothing is to be kept"
    )
    # Edited at twice their sides: 63 pixels become 252, and 64 the 256 of a token.
    assert "less than one token of 16x16" in (mask_remark(mask_of(*((row, 3) for row in range(63))), 128, 16) or "")
    assert mask_remark(mask_of(*((row, 3) for row in range(64))), 128, 16) is None
