"""From what a data set calls a mask to the one form there is, threshold by threshold."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rc_grpo.data.masks import MaskFormat, canonical_mask, mask_of
from rc_grpo.data.picture import Picture
from rc_grpo.data.rle import Rle
from rc_grpo.editor.geometry import EmptyMaskError

from .conftest import HEIGHT, MASK, SOURCE, WIDTH, decoded, photo, png, region, rgba

IMAGE = Picture(SOURCE, "source")
LEVELS = np.where(region(), np.uint8(255), np.uint8(0))


def canonical(mask: bytes | Rle, form: MaskFormat = "auto", **options: bool) -> bytes:
    return canonical_mask(mask if isinstance(mask, Rle) else Picture(mask, "mask"), IMAGE, form, **options)


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def tinted(apart: int, pixels: int) -> bytes:
    """The mask in RGB, with a number of its dark pixels in a colour whose channels are so far apart."""
    colours = np.dstack([LEVELS] * 3)
    rows, columns = np.nonzero(~region())
    colours[rows[:pixels], columns[:pixels], 0] = apart
    return png(colours)


@pytest.mark.parametrize(("apart", "pixels"), [(48, 600), (30, 600), (120, 7)])
def test_grey_with_a_tint_or_a_stray_mark_is_grey(apart: int, pixels: int) -> None:
    assert canonical(tinted(apart, pixels)) == MASK


@pytest.mark.parametrize(("apart", "pixels"), [(49, 600), (120, 8)])  # of 768: 8 are more than one in a hundred
def test_channels_apart_in_more_than_a_hundredth_are_colour(apart: int, pixels: int) -> None:
    with pytest.raises(ValueError, match="colour picture"):
        canonical(tinted(apart, pixels))
    assert canonical(tinted(apart, pixels), "image") == MASK


@pytest.mark.parametrize("form", ["auto", "alpha"])
def test_alpha_below_half_its_range_is_transparent(form: MaskFormat) -> None:
    alpha = np.where(region(), np.uint8(127), np.uint8(128))
    assert canonical(png(np.dstack([photo(5), alpha])), form) == MASK


@pytest.mark.parametrize("mode", ["LA", "P", "RGB"])
def test_transparency_is_the_mask_in_every_mode_that_has_it(mode: str) -> None:
    if mode == "LA":
        data = png(np.dstack([np.full_like(LEVELS, 90), 255 - LEVELS]))
    else:
        image = Image.fromarray(np.dstack([np.where(region(), 7, 90).astype(np.uint8)] * 3))
        data = (
            saved(image, transparency=(7, 7, 7))
            if mode == "RGB"
            else saved(image.convert("L").convert("P"), transparency=7)
        )
    assert canonical(data) == MASK


def test_a_format_that_is_asked_for_is_not_guessed() -> None:
    bright_and_opaque = rgba(np.dstack([LEVELS] * 3), np.zeros_like(region()))
    assert canonical(bright_and_opaque) == MASK
    with pytest.raises(EmptyMaskError, match=r"covers no pixel$"):
        canonical(bright_and_opaque, "alpha")
    with pytest.raises(ValueError, match="no alpha channel"):
        canonical(MASK, "alpha")
    with pytest.raises(ValueError, match=r"^there is no mask$"):
        canonical_mask(None, Picture(rgba(photo(5), region()), "source"), "image")


@pytest.mark.parametrize("stray", [1, 127, 254])
def test_a_level_that_is_neither_black_nor_white_is_settled(stray: int) -> None:
    levels = LEVELS.copy()
    levels[0, 0] = stray
    mask = canonical(png(levels))
    assert sorted(np.unique(np.asarray(Image.open(io.BytesIO(mask))))) == [0, 255]
    assert decoded(mask)[0, 0] == (stray > 127)
    assert (decoded(mask)[1:] == region()[1:]).all()


@pytest.mark.parametrize("form", ["TIFF", "BMP"])
def test_black_and_white_in_another_file_format_becomes_png(form: str) -> None:
    assert canonical(saved(Image.fromarray(LEVELS), form)) == MASK


def test_black_and_white_in_another_mode_becomes_grey() -> None:
    assert canonical(png(np.dstack([LEVELS] * 3))) == MASK


def test_levels_of_16_and_32_bits_are_no_colours() -> None:
    assert canonical(saved(Image.fromarray(LEVELS.astype(np.uint16) * 257))) == MASK
    assert canonical(saved(Image.fromarray(LEVELS.astype(np.int32)), "TIFF")) == MASK
    assert canonical(saved(Image.fromarray(LEVELS.astype(np.float32)), "TIFF")) == MASK


@pytest.mark.parametrize("shape", [(HEIGHT, WIDTH + 1), (HEIGHT + 1, WIDTH), (WIDTH, HEIGHT)])
def test_a_mask_of_another_size_is_refused_unless_it_may_be_stretched(shape: tuple[int, int]) -> None:
    full = np.full(shape, 255, np.uint8)
    for mask in (png(full), Rle(*shape, (0, full.size))):
        with pytest.raises(ValueError, match=f"the mask is {shape[0]}x{shape[1]}, the source 24x32"):
            canonical(mask)
        assert decoded(canonical(mask, stretch=True)).shape == (HEIGHT, WIDTH)


def test_a_size_that_is_the_other_way_round_is_said_to_be_transposed() -> None:
    runs = {"size": [WIDTH, HEIGHT], "counts": [0, WIDTH * HEIGHT]}
    with pytest.raises(ValueError, match=r"32x24, the source 24x32 .*its size is transposed; .* \[height, width\]"):
        canonical(Rle.parse(runs))
    with pytest.raises(ValueError, match="transposed, or turned by a quarter"):
        canonical(png(np.full((WIDTH, HEIGHT), 255, np.uint8)))
    with pytest.raises(ValueError, match=r"\(height x width\)$"):
        canonical(Rle(HEIGHT, WIDTH - 1, (0, HEIGHT * (WIDTH - 1))))


@pytest.mark.parametrize("invert", [False, True])
def test_a_stretched_mask_takes_the_nearest_pixels(invert: bool) -> None:
    small = np.zeros((6, 8), np.uint8)
    small[2, 5] = 255
    expected = np.kron(small, np.ones((4, 4))) > 0
    assert (decoded(canonical(png(small), invert=invert, stretch=True)) == (expected ^ invert)).all()


def test_a_stretched_mask_of_which_nothing_is_left_is_refused() -> None:
    large = np.zeros((10 * HEIGHT, 10 * WIDTH), np.uint8)
    large[0, 0] = 255
    with pytest.raises(EmptyMaskError, match="covers no pixel"):
        canonical(png(large), stretch=True)


def test_stretching_leaves_a_fitting_mask_as_it_is() -> None:
    assert canonical(MASK, stretch=True) is MASK


@pytest.mark.parametrize("form", ["levels", "alpha", "rle"])
@pytest.mark.parametrize("invert", [False, True])
def test_a_mask_that_covers_nothing_is_refused_by_that_name_in_every_form(form: str, invert: bool) -> None:
    covered = np.full_like(region(), invert)
    mask = {
        "levels": png(np.where(covered, np.uint8(255), np.uint8(0))),
        "alpha": rgba(photo(5), covered),
        "rle": Rle(HEIGHT, WIDTH, (0, covered.size) if invert else (covered.size,)),
    }[form]
    with pytest.raises(EmptyMaskError, match="covers no pixel" + (" after inversion$" if invert else "$")):
        canonical(mask, "alpha" if form == "alpha" else "auto", invert=invert)


def test_a_mask_that_breaks_off_is_said_to_be_the_mask() -> None:
    with pytest.raises(ValueError, match="the mask is not a readable image"):
        canonical(png(LEVELS)[:-30])


def test_a_cell_is_run_lengths_or_a_picture_or_nothing() -> None:
    runs = {"size": [2, 2], "counts": [1, 3]}
    folder = Path("/data")
    assert mask_of(runs, folder) == mask_of(f"  {json.dumps(runs)}", folder) == Rle(2, 2, (1, 3))
    assert mask_of({"size": None, "counts": None}, folder) is None
    assert mask_of(None, folder) is None
    assert mask_of("a{}.png", folder) == Picture(folder / "a{}.png", "mask")
    assert mask_of({"bytes": b"x", "path": None}, folder) == Picture(b"x", "mask")
    with pytest.raises(ValueError, match="neither a path nor RLE as JSON"):
        mask_of(" {counts: 1}", folder)
    with pytest.raises(ValueError, match="the mask is bytes, a path or"):
        mask_of('{"size": [2, 2]}', folder)
