import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.rle import Rle
from rc_grpo.images import encode_png

from .conftest import HEIGHT, MASK, SOURCE, WIDTH, decoded, photo, png, region, rgba, source_of


def runs_of(inside):
    flat = inside.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat])) != 0)
    return np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()


def compressed(runs):
    """COCO's rleToString."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


@pytest.fixture
def mask_of(lines):
    def load(mask, files=None, **options):
        (task,) = load_tasks(source_of(lines({"mask": mask}, files=files), **options))
        return task.mask

    return load


def test_a_canonical_mask_passes_through_byte_for_byte(mask_of):
    unusual = png(np.where(region(), np.uint8(255), np.uint8(0)), compress_level=9)
    assert unusual != MASK
    assert mask_of("m.png", {"m.png": unusual}) == unusual


@pytest.mark.parametrize(
    "form", ["0/1", "bool", "jpeg", "rgb", "grey levels", "two channels", "opaque alpha", "palette"]
)
def test_every_other_grey_mask_becomes_the_canonical_png(mask_of, tmp_path, form):
    inside = region()
    levels = np.where(inside, np.uint8(255), np.uint8(0))
    image = {
        "0/1": Image.fromarray(inside.astype(np.uint8)),
        "bool": Image.fromarray(inside),
        "jpeg": Image.fromarray(levels),
        "rgb": Image.fromarray(np.dstack([levels] * 3)),
        "grey levels": Image.fromarray(np.where(inside, np.uint8(200), np.uint8(60))),
        "two channels": Image.fromarray(np.dstack([levels, np.full_like(levels, 255)]), "LA"),
        "opaque alpha": Image.fromarray(np.dstack([levels] * 3 + [np.full_like(levels, 255)])),
        "palette": Image.fromarray(inside.astype(np.uint8)).convert("P"),
    }[form]
    image.save(
        tmp_path / "m", format="JPEG" if form == "jpeg" else "PNG", **({"quality": 95} if form == "jpeg" else {})
    )
    assert mask_of("m", {"m": (tmp_path / "m").read_bytes()}) == MASK


def test_inversion_swaps_inside_and_outside(mask_of):
    assert (decoded(mask_of("mask.png", invert_mask=True)) == ~region()).all()


def test_inversion_holds_for_alpha_and_run_lengths_too(mask_of):
    holed = {"m.png": rgba(photo(5), region())}
    for mask in ("m.png", {"size": [HEIGHT, WIDTH], "counts": runs_of(region())}):
        assert (decoded(mask_of(mask, holed, invert_mask=True)) == ~region()).all()


def test_a_full_mask_is_legal_but_not_inverted(mask_of):
    full = {"m.png": png(np.full((HEIGHT, WIDTH), 255, np.uint8))}
    assert mask_of("m.png", full) == full["m.png"]
    with pytest.raises(DataError, match="covers no pixel after inversion"):
        mask_of("m.png", full, invert_mask=True)


@pytest.mark.parametrize("form", ["auto", "rle"])
@pytest.mark.parametrize("write", ["list", "string", "json"])
def test_run_lengths_are_read_as_lists_strings_and_json(mask_of, form, write):
    runs = runs_of(region())
    value = {"size": [HEIGHT, WIDTH], "counts": runs if write == "list" else compressed(runs)}
    assert mask_of(json.dumps(value) if write == "json" else value, mask_format=form) == MASK


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_coco_strings_decode_to_what_was_encoded(height, width, data):
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    inside = np.asarray(bits).reshape(height, width)
    assert (Rle(height, width, compressed(runs_of(inside))).decode() == inside).all()


def test_a_published_coco_string_decodes_to_its_area():
    # pycocotools' own encoding of a 3x3 block in the corner of a 9x10 image: runs 0, 3, 6, 3, 6, 3, 69.
    assert compressed([0, 3, 6, 3, 6, 3, 69]) == "036000o1"
    mask = Rle(9, 10, "036000o1").decode()
    assert mask[:3, :3].all()
    assert mask.sum() == 9


@pytest.mark.parametrize(
    ("rle", "reason"),
    [
        ({"size": [24, 32], "counts": "0P"}, "cut off"),
        ({"size": [24, 32], "counts": "~~"}, "character '~'"),
        ({"size": [24], "counts": [1]}, "an RLE mask is"),
        ({"size": [0, 32], "counts": []}, "size 0x32"),
        ({"size": [24, 32], "counts": [-8, 776]}, "add up to"),
        ({"size": [9**9, 9**9], "counts": [1]}, "the source 24x32"),
        ("{oops", "RLE as JSON"),
    ],
)
def test_broken_run_lengths_say_what_is_wrong(mask_of, rle, reason):
    with pytest.raises(DataError, match=reason):
        mask_of(rle)


@pytest.mark.parametrize("form", ["auto", "alpha"])
def test_transparent_pixels_of_the_mask_are_where_to_edit(mask_of, form):
    assert mask_of("m.png", {"m.png": rgba(photo(5), region())}, mask_format=form) == MASK


@pytest.mark.parametrize("form", ["auto", "alpha"])
def test_without_a_mask_the_sources_alpha_channel_is_the_mask_and_no_hole_in_the_image(lines, form):
    path = lines({"mask": None, "source": "s.png"}, files={"s.png": rgba(photo(5), region())})
    (task,) = load_tasks(source_of(path, mask_format=form))
    assert task.mask == MASK
    assert task.source == encode_png(photo(5))


def test_an_opaque_source_as_mask_is_an_empty_mask(lines):
    path = lines({"mask": None, "source": "s.png"}, files={"s.png": rgba(photo(5), np.zeros_like(region()))})
    with pytest.raises(DataError, match="covers no pixel"):
        load_tasks(source_of(path))


@pytest.mark.parametrize(
    ("form", "mask", "reason"),
    [
        ("image", None, "there is no mask"),
        ("image", {"size": [24, 32], "counts": [0, 768]}, "is RLE, but mask_format is 'image'"),
        ("alpha", "mask.png", "no alpha channel"),
        ("rle", "mask.png", "is not RLE, but mask_format is 'rle'"),
        ("auto", "source.png", "colour picture without transparency"),
    ],
)
def test_a_mask_of_another_form_than_said_is_refused(mask_of, form, mask, reason):
    with pytest.raises(DataError, match=reason):
        mask_of(mask, mask_format=form)


def test_mask_format_image_ignores_alpha_and_takes_the_brightness_of_colours(mask_of):
    levels = np.where(region(), np.uint8(255), np.uint8(0))
    masked = rgba(np.dstack([levels] * 3), transparent=np.ones_like(region()))
    assert mask_of("m.png", {"m.png": masked}, mask_format="image") == MASK
    brightness = Image.open(io.BytesIO(SOURCE)).convert("L")
    assert (decoded(mask_of("source.png", mask_format="image")) == (np.asarray(brightness) >= 128)).all()
