"""An image of a data set: what counts as there, as whole and as inside the folder; Pillow's errors are bad data."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rc_grpo.data.formats.path import inside
from rc_grpo.data.picture import Picture, opaque, picture

from .conftest import HEIGHT, SOURCE, WIDTH, photo, png

FOLDER = Path("/data/set")
Held = Callable[[bytes], Picture]


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(1)).save(buffer, format=form)
    return buffer.getvalue()


@pytest.fixture(params=["bytes", "file"])
def held(request: pytest.FixtureRequest, tmp_path: Path) -> Held:
    """Make a picture of bytes, held in memory or in a file."""

    def hold(data: bytes) -> Picture:
        if request.param == "bytes":
            return Picture(data, "source")
        (tmp_path / "image").write_bytes(data)
        return Picture(tmp_path / "image", "source")

    return hold


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_whole_image_of_any_format_passes(held: Held, form: str) -> None:
    image = held(encoded(form))
    image.check()
    assert image.read() == encoded(form)
    assert image.size() == (HEIGHT, WIDTH)
    assert image.decode().size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP"])
@pytest.mark.parametrize("lost", [40, 400])
def test_an_image_that_breaks_off_does_not_pass(held: Held, form: str, lost: int) -> None:
    image = held(encoded(form)[:-lost])
    with pytest.raises(ValueError, match="the source is not a readable image"):
        image.check()
    with pytest.raises(ValueError, match="the source is not a readable image"):
        image.decode()


def test_the_size_is_read_from_the_header_alone(held: Held) -> None:
    assert held(SOURCE[:100]).size() == (HEIGHT, WIDTH)


def test_a_tiny_image_shorter_than_the_tail_that_is_looked_at_passes(held: Held) -> None:
    held(b"P6 1 1 255 " + bytes(3)).check()


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
@pytest.mark.parametrize("padding", [0, 16])
def test_a_whole_png_or_jpeg_is_not_decoded_to_see_that_it_is_whole(
    held: Held, monkeypatch: pytest.MonkeyPatch, form: str, padding: int
) -> None:
    monkeypatch.setattr(Picture, "decode", lambda self: pytest.fail("decoded"))
    held(encoded(form) + bytes(padding)).check()


def test_an_end_mark_in_the_middle_says_nothing_of_the_end(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(Picture, "decode", lambda self: decoded.append(self))
    held(SOURCE + bytes(1000)).check()
    assert len(decoded) == 1


def test_bytes_with_an_end_mark_and_no_header_are_no_image(held: Held) -> None:
    with pytest.raises(ValueError, match="the source is not a readable image"):
        held(b"no image" + SOURCE[-40:]).check()


@pytest.mark.parametrize(
    "error",
    [
        OSError("x"),
        SyntaxError("x"),
        ValueError("x"),
        EOFError("x"),
        struct.error("x"),
        zlib.error("x"),
        IndexError("x"),
        OverflowError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_pillow_raises_is_bad_data_with_the_role(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(stream: object, formats: object) -> Image.Image:
        raise error

    monkeypatch.setattr(Image, "open", broken)
    for read in (Picture(SOURCE, "target").size, Picture(SOURCE, "target").decode):
        with pytest.raises(ValueError, match="the target is not a readable image: x"):
            read()


def test_an_error_of_ours_is_none_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(stream: object, formats: object) -> Image.Image:
        raise ZeroDivisionError

    monkeypatch.setattr(Image, "open", broken)
    with pytest.raises(ZeroDivisionError):
        Picture(SOURCE, "target").size()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.png", tmp_path):
        with pytest.raises(ValueError, match=rf"the mask: cannot read {path} \((No such file|Is a) [a-z ]+\)$"):
            Picture(path, "mask").read()
        with pytest.raises(ValueError, match=f"the mask: cannot read {path}"):
            Picture(path, "mask").decode()
        with pytest.raises(ValueError, match=rf"the mask: no file {path}( \(it is a folder\))?$"):
            Picture(path, "mask").size()
        with pytest.raises(ValueError, match=rf"the mask: no file {path}( \(it is a folder\))?$"):
            Picture(path, "mask").check()


@pytest.mark.parametrize(
    "empty", [None, "", b"", {"bytes": None, "path": None}, {"bytes": None}, {"bytes": b"", "path": "a"}]
)
def test_a_cell_that_holds_nothing_is_no_picture(empty: object) -> None:
    assert picture(empty, FOLDER, "target") is None


@pytest.mark.parametrize(
    ("cell", "origin"),
    [
        (b"x", b"x"),
        ("a/b.png", FOLDER / "a/b.png"),
        ({"bytes": b"x", "path": "a.png"}, b"x"),
        ({"bytes": None, "path": "a.png"}, FOLDER / "a.png"),
    ],
)
def test_a_cell_holds_bytes_or_a_path_or_both(cell: object, origin: bytes | Path) -> None:
    assert picture(cell, FOLDER, "mask") == Picture(origin, "mask")


@pytest.mark.parametrize("cell", [5, ["a.png"], {"path": "a.png"}, bytearray(b"x"), {"bytes": 5}])
def test_a_cell_that_holds_something_else_is_refused_by_its_type(cell: object) -> None:
    with pytest.raises(
        ValueError, match=r"the target is bytes, a path or \{bytes, path\}, not (a number|a list|an object|a bytearray)"
    ):
        picture(cell, FOLDER, "target")


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("a/../b.png", "b.png"),
        ("./a//b.png", "a/b.png"),
        ("..a/b.png", "..a/b.png"),
        ("a..b.png", "a..b.png"),
        ("a/..", "."),
    ],
)
def test_a_path_that_stays_inside_is_normalised(path: str, normal: str) -> None:
    assert str(inside(path, FOLDER)) == str(FOLDER / normal)


@pytest.mark.parametrize("path", ["..", "../a", "a/../../b", "a/b/../../..", "/etc/hostname", "/data/set/a", "./../a"])
def test_a_path_that_leaves_or_is_absolute_is_refused(path: str) -> None:
    with pytest.raises(
        ValueError, match=f"path '{path}' leaves the data set's folder /data/set; paths are relative to it"
    ):
        inside(path, FOLDER)


def test_an_opaque_image_keeps_the_colours_below_its_transparency() -> None:
    colours = photo(5)
    transparent = Image.open(io.BytesIO(png(np.dstack([colours, np.zeros(colours.shape[:2], np.uint8)]))))
    shown = Image.open(io.BytesIO(opaque(transparent)))
    assert shown.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(shown), colours)
