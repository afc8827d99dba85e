"""What is stored becomes the pixels that it shows: bits, modes, palettes, orientation; or it is refused by row."""

import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.masks import canonical_mask
from rc_grpo.data.picture import Picture
from rc_grpo.editor.geometry import inside_of
from rc_grpo.images import MAX_ASPECT, MAX_PIXELS, UnfitImageError, decode_levels, decode_rgb, encode_png, size_of

from .conftest import HEIGHT, MASK, SOURCE, WIDTH, decoded, photo, png, reason_of, region, source_of

RAMP = np.tile(np.linspace(0, 65535, 64).round().astype(np.uint16), (8, 1))
SHOWN = np.tile(np.linspace(0, 255, 64), (8, 1))


def saved(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(
    height: int, width: int, bits: int, colours: int, rows: bytes, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A PNG written by hand: the oracle for what Pillow cannot write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png16(levels: np.ndarray, colours: int, before: bytes = b"") -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    return raw_png(*levels.shape[:2], 16, colours, rows, before)


SIXTEEN = {
    "grey PNG": png16(RAMP, 0),
    "RGB PNG": png16(np.dstack([RAMP] * 3), 2),
    "grey PNG with alpha": png16(np.dstack([RAMP, np.full_like(RAMP, 65535)]), 4),
    "RGB PNG with alpha": png16(np.dstack([RAMP] * 3 + [np.full_like(RAMP, 65535)]), 6),
    "grey TIFF": saved(Image.fromarray(RAMP), "TIFF"),
    "big-endian TIFF": saved(Image.fromarray(RAMP.astype(">u2")), "TIFF"),
    "PGM": b"P5 64 8 65535\n" + RAMP.astype(">u2").tobytes(),
    "PPM": b"P6 64 8 65535\n" + np.dstack([RAMP] * 3).astype(">u2").tobytes(),
}


@pytest.mark.parametrize("name", SIXTEEN)
def test_a_ramp_of_16_bits_is_a_ramp(name: str) -> None:
    Picture(SIXTEEN[name], "source").check()
    shown = decode_rgb(SIXTEEN[name])
    assert shown.shape == (8, 64, 3)
    assert np.abs(shown.astype(float) - SHOWN[..., None]).max() <= 1


def test_transparency_of_16_bits_is_white() -> None:
    shown = decode_rgb(png16(RAMP, 0, chunk(b"tRNS", struct.pack(">H", 0))))
    assert (shown[:, 0] == 255).all()
    assert np.abs(shown[:, 1:].astype(float) - SHOWN[:, 1:, None]).max() <= 1


COLOURS = photo(3)
GREY = COLOURS[..., 0]
MODES = {
    "1": (saved(Image.fromarray(region())), np.where(region(), 255, 0)[..., None]),
    "L": (png(GREY), GREY[..., None]),
    "LA": (saved(Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (WIDTH, HEIGHT), 255)])), GREY[..., None]),
    "P": (saved(Image.fromarray(GREY).convert("P")), GREY[..., None]),
    "PA": (saved(Image.fromarray(GREY).convert("PA"), "TIFF"), GREY[..., None]),
    "RGBA": (png(np.dstack([COLOURS, np.full_like(GREY, 255)])), COLOURS),
    "invisible": (png(np.dstack([COLOURS, np.zeros_like(GREY)])), np.full_like(COLOURS, 255)),
    "P with transparency": (
        saved(Image.fromarray(np.where(region(), 7, 90).astype(np.uint8)).convert("P"), transparency=7),
        np.where(region(), 255, 90)[..., None],
    ),
    "CMYK": (saved(Image.fromarray(255 - COLOURS).convert("RGB").convert("CMYK"), "TIFF"), 255 - COLOURS),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_the_colours_it_shows(name: str) -> None:
    data, expected = MODES[name]
    Picture(data, "source").check()
    shown = decode_rgb(data)
    assert shown.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))


MEANINGLESS = {
    "float": saved(Image.fromarray(np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)), "TIFF"),
    "32 bits": saved(Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)), "TIFF"),
    "LAB": saved(Image.new("LAB", (WIDTH, HEIGHT)), "TIFF"),
}


@pytest.mark.parametrize("name", MEANINGLESS)
@pytest.mark.parametrize("field", ["source", "target"])
def test_levels_whose_white_is_unknown_are_refused_by_row(lines, name: str, field: str) -> None:
    path = lines({}, {field: "odd.tif"}, files={"odd.tif": MEANINGLESS[name]})
    with pytest.raises(DataError, match=rf"'t1' .*line 2\): the {field} has (levels|32-bit levels|colours).*; save it"):
        load_tasks(source_of(path))
    with pytest.raises(UnfitImageError, match="save it"):
        decode_rgb(MEANINGLESS[name])


# Which pixel of the stored image stands in each corner of the upright one, as the standard's table has it.
TURNS = {1: "abcd", 2: "badc", 3: "dcba", 4: "cdab", 5: "acbd", 6: "cadb", 7: "dbca", 8: "bdac"}
CORNERS = {"a": 10, "b": 90, "c": 170, "d": 250}


def oriented(orientation: int, form: str, how: str = "exif") -> bytes:
    """An image twice as wide as high, stored, whose corners are a b / c d, with a note how to turn it."""
    levels = np.kron(np.array([[10, 90], [170, 250]], np.uint8), np.ones((16, 32), np.uint8))
    image = Image.fromarray(np.dstack([levels] * 3))
    note = Image.Exif()
    note[0x0112] = orientation
    if how == "late":
        rows = b"".join(b"\0" + row.tobytes() for row in levels)
        return raw_png(32, 64, 8, 0, rows, after=chunk(b"eXIf", note.tobytes().removeprefix(b"Exif\0\0")))
    return saved(image, form, exif=note, **({"quality": 95} if form in ("JPEG", "WEBP") else {}))


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(
    ("form", "how"), [("JPEG", "exif"), ("PNG", "exif"), ("PNG", "late"), ("WEBP", "exif"), ("TIFF", "exif")]
)
def test_an_image_is_upright_wherever_it_is_opened(orientation: int, form: str, how: str) -> None:
    data = oriented(orientation, form, how)
    size = (64, 32) if orientation >= 5 else (32, 64)
    expected = [CORNERS[corner] for corner in TURNS[orientation]]
    picture = Picture(data, "source")
    picture.check()
    assert picture.size() == size_of(data) == size
    for levels in (decode_rgb(data)[..., 0], decode_levels(data), np.asarray(picture.decode().convert("L"))):
        assert levels.shape == size
        corners = [levels[row, column] for row in (4, -5) for column in (4, -5)]
        np.testing.assert_allclose(corners, expected, atol=4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_an_unreadable_note_turns_nothing() -> None:
    data = saved(Image.fromarray(photo(1)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    assert size_of(data) == decode_rgb(data).shape[:2] == (HEIGHT, WIDTH)


def test_a_turned_source_fits_an_upright_mask_and_a_turned_mask_an_upright_source(lines) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    upright = np.where(region(), np.uint8(255), np.uint8(0))
    files = {
        "source6.jpg": saved(Image.fromarray(np.rot90(photo(1))), "JPEG", exif=turned),
        "mask6.png": saved(Image.fromarray(np.rot90(upright)), exif=turned),
    }
    path = lines({"source": "source6.jpg"}, {"mask": "mask6.png"}, {"target": "source6.jpg"}, files=files)
    tasks = list(load_tasks(source_of(path)))
    for task in tasks:
        assert decode_rgb(task.source).shape[:2] == (HEIGHT, WIDTH)
        assert (decoded(task.mask) == region()).all()
        assert Image.open(io.BytesIO(task.mask)).getexif().get(0x0112, 1) == 1


def test_a_mask_whose_upright_size_differs_is_refused(lines) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    path = lines({"mask": "mask6.png"}, files={"mask6.png": saved(Image.open(io.BytesIO(MASK)), exif=turned)})
    with pytest.raises(DataError, match=r"the mask is 32x24, the source 24x32 .*turned by a quarter"):
        load_tasks(source_of(path))


def claiming(height: int, width: int) -> bytes:
    return raw_png(height, width, 8, 2, b"")


BMP = saved(Image.fromarray(photo(1)), "BMP")
UNFIT = {
    "20000 x 20000": (claiming(20000, 20000), "pixels.*; shrink it"),
    "a million squared": (claiming(10**6, 10**6), "pixels.*; shrink it"),
    "just too many": (claiming(8193, 8192), f"is 8193x8192 .*more than {MAX_PIXELS} pixels; shrink it"),
    "bomb as BMP": (BMP[:18] + struct.pack("<ii", 30000, 30000) + BMP[26:], "pixels"),
    "1 x 100000": (saved(Image.new("L", (100_000, 1), 9)), "is 1x100000 .*one side more than 32 times.*; crop it"),
    "100 x 1": (saved(Image.new("RGB", (1, 100), 9)), "is 100x1 .*one side more than 32 times"),
    "no pixel": (claiming(0, 5), "not a readable image"),
    "empty": (b"\x89PNG\r\n\x1a\n", "not a readable image"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "formats are PNG, JPEG"),
    "an icon": (saved(Image.new("RGB", (16, 16)), "ICO"), "formats are PNG, JPEG"),
    "cut off TIFF": (saved(Image.fromarray(photo(1)), "TIFF")[:900], "not a readable image"),
    "cut off GIF": (saved(Image.fromarray(photo(1)), "GIF")[:300], "not a readable image"),
    "cut off BMP": (saved(Image.fromarray(photo(1)), "BMP")[:900], "not a readable image"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("field", ["source", "mask", "target"])
def test_an_image_that_nobody_should_decode_is_refused_by_row(lines, name: str, field: str) -> None:
    data, said = UNFIT[name]
    path = lines({}, {field: "odd"}, files={"odd": data})
    with pytest.raises(DataError, match=rf"'t1' .*line 2\): the {field} .*({said})"):
        load_tasks(source_of(path))
    assert [task.task_id for task in load_tasks(source_of(path, on_bad_task="skip"))] == ["t0"]


def test_the_largest_and_the_narrowest_that_are_read_are_read() -> None:
    assert size_of(claiming(8192, 8192)) == (8192, 8192)
    assert MAX_PIXELS == 8192**2
    assert decode_rgb(png(np.zeros((2, 2 * MAX_ASPECT), np.uint8))).shape == (2, 64, 3)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM"]), st.integers(0, 2000), st.data())
def test_damaged_bytes_are_pixels_or_a_value_error(form: str, cut: int, draw: Any) -> None:
    data = bytearray(saved(Image.fromarray(photo(1)), form))
    for _ in range(draw.draw(st.integers(0, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    picture = Picture(bytes(data[: max(1, len(data) - cut)]), "source")
    for look in (picture.check, picture.decode, picture.size):
        reason = reason_of(look)
        assert reason is None or reason.startswith("the source ")


def mask_of(levels: np.ndarray, form: str = "PNG") -> np.ndarray:
    source = Picture(SOURCE, "source")
    return decoded(canonical_mask(Picture(saved(Image.fromarray(levels), form), "mask"), source, "auto"))


def two(low: float, high: float, dtype: Any = np.uint8) -> np.ndarray:
    return np.where(region(), high, low).astype(dtype)


@pytest.mark.parametrize(
    "levels",
    [
        *(two(low, high) for low, high in [(0, 1), (0, 255), (1, 255), (0, 37), (10, 250), (0, 200), (60, 200)]),
        *(two(low, high) for low, high in [(10, 100), (150, 250), (223, 255)]),
        *(two(low, high, np.uint16) for low, high in [(0, 65535), (0, 1), (257, 65535), (2570, 64250), (0, 255)]),
    ],
    ids=lambda levels: f"{levels.dtype}-{levels.min()}-{levels.max()}",
)
def test_of_two_levels_the_higher_is_where_to_edit(levels: np.ndarray) -> None:
    assert (mask_of(levels) == region()).all()


@pytest.mark.parametrize(
    "levels",
    [
        two(0, 1, np.float32),
        two(0, 255, np.float32),
        two(0.1, 0.9, np.float32),
        two(0, 1, np.int32),
        two(0, 65535, np.int32),
        np.where(region(), 0.9, np.linspace(0, 0.4, WIDTH)).astype(np.float32),
    ],
)
def test_levels_in_floating_point_or_of_32_bits_are_read_by_what_there_is(levels: np.ndarray) -> None:
    assert (mask_of(levels, "TIFF") == region()).all()


@pytest.mark.parametrize(
    "levels",
    [
        *(two(low, high) for low, high in [(254, 255), (1, 2), (128, 129), (100, 110)]),
        *(np.full((HEIGHT, WIDTH), level, np.uint8) for level in (2, 128, 254)),
        np.where(region(), 3, np.arange(WIDTH) % 3).astype(np.uint8),
        np.where(region(), 255, 200 + np.arange(WIDTH) % 30).astype(np.uint8),
        two(60000, 60100, np.uint16),
    ],
)
def test_levels_that_do_not_tell_inside_from_outside_are_refused_and_never_cover_all_or_nothing(
    levels: np.ndarray,
) -> None:
    with pytest.raises(ValueError, match=r"the mask has .*save it as black and white"):
        mask_of(levels)


@pytest.mark.parametrize("levels", [two(-1, 1, np.int32), two(0, np.nan, np.float32), np.float32([[0, 1, 1e9]])])
def test_levels_that_are_none_are_refused(levels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="negative, too large or no numbers"):
        inside_of(levels)


@given(st.sets(st.integers(0, 255), min_size=2, max_size=6))
def test_no_mask_of_several_levels_covers_all_or_nothing(present: set[int]) -> None:
    levels = np.resize(np.array(sorted(present), np.uint8), (HEIGHT, WIDTH))
    try:
        inside = mask_of(levels)
    except ValueError:
        return
    assert inside.any()
    assert not inside.all()
    # Whatever is inside is brighter than whatever is not.
    assert levels[inside].min() > levels[~inside].max()


def palette(colours: list[tuple[int, int, int]]) -> bytes:
    image = Image.fromarray(region().astype(np.uint8), "P")
    image.putpalette([channel for colour in colours for channel in colour])
    return saved(image)


def test_a_grey_palette_gives_its_greys_and_a_coloured_one_its_indices() -> None:
    source = Picture(SOURCE, "source")
    black_white, white_black = [(0, 0, 0), (255, 255, 255)], [(255, 255, 255), (0, 0, 0)]
    assert (decoded(canonical_mask(Picture(palette(black_white), "mask"), source, "auto")) == region()).all()
    assert (decoded(canonical_mask(Picture(palette(white_black), "mask"), source, "auto")) == ~region()).all()
    labels = Picture(palette([(200, 0, 0), (0, 0, 90)]), "mask")
    assert (decoded(canonical_mask(labels, source, "image")) == region()).all()


@pytest.mark.parametrize(("inside", "outside"), [(0, 1), (3, 100)])
def test_an_alpha_channel_that_is_transparent_everywhere_in_two_ways_tells_nothing(inside: int, outside: int) -> None:
    mask = png(np.dstack([photo(5), np.where(region(), inside, outside).astype(np.uint8)]))
    with pytest.raises(ValueError, match="transparent everywhere"):
        canonical_mask(Picture(mask, "mask"), Picture(SOURCE, "source"), "auto")


def test_the_canonical_mask_is_what_was_encoded() -> None:
    assert encode_png(two(0, 255)) == MASK


def test_what_lies_behind_the_end_of_a_png_costs_nothing() -> None:
    began = time.monotonic()
    data = SOURCE + bytes(2**26)
    assert size_of(data) == (HEIGHT, WIDTH)
    assert decode_rgb(data).shape == (HEIGHT, WIDTH, 3)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("error", [RuntimeError("planes"), NotImplementedError("tiles"), SyntaxError("x"), KeyError(3)])
def test_whatever_a_decoder_says_is_a_value_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Image.Image) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", failing)
    for read in (decode_rgb, decode_levels, Picture(SOURCE, "source").decode):
        with pytest.raises(ValueError, match="not a readable image"):
            read(SOURCE) if read in (decode_rgb, decode_levels) else read()
