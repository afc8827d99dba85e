"""Where a path is expected: what else is found there is told in one short line, and the file system's refusals too."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.data import DataError, load_tasks
from rc_grpo.data.picture import picture

from .conftest import MASK, SOURCE, reason_of, source_of
from .test_picture import encoded

ENCODED = base64.b64encode(SOURCE).decode()
LOOKS = {
    "base64 of PNG": (ENCODED, "base64"),
    "base64 of JPEG": (base64.b64encode(encoded("JPEG")).decode(), "base64"),
    "base64 of WebP": (base64.b64encode(encoded("WEBP")).decode(), "base64"),
    "base64 of a small GIF": (base64.b64encode(encoded("GIF")).decode()[:60], "base64"),
    "base64 in lines": (base64.encodebytes(SOURCE).decode(), "base64"),
    "url-safe base64": (base64.urlsafe_b64encode(bytes(range(256)) * 9).decode(), "base64"),
    "data URL": ("data:image/png;base64," + ENCODED, "a data: URL"),
    "data URL in capitals": ("DATA:image/png," + "%00" * 99, "a data: URL"),
    "https": ("https://example.com/a.png?" + "x" * 3000, "a URL, and nothing is downloaded"),
    "s3": ("s3://bucket/a.png", "a URL"),
    "file": ("file:///data/a.png", "a URL"),
    "Kaggle's run lengths": ("1 3 10 5 " * 500, "run lengths"),
    "run lengths with commas": ("1, 3, 10, 5", "run lengths"),
    "a list as text": ("[0, 1, 2]" * 400, "a list or markup"),
    "SVG": ("<svg xmlns='x'>" + " " * 4000 + "</svg>", "a list or markup"),
}


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize("field", ["source", "mask", "target"])
def test_what_looks_like_something_else_is_told_in_one_short_line(lines, name: str, field: str) -> None:
    cell, looks = LOOKS[name]
    path = lines({}, {field: cell})
    with pytest.raises(DataError, match=rf"'t1' \(.*line 2\): the {field} looks like {looks}.*name its path") as error:
        load_tasks(source_of(path))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 450 + len(str(path))
    assert len(load_tasks(source_of(path, on_bad_task="skip"))) == 1


NAMES = {
    "too long a name": ("a" * 90 + "." + "b" * 300, "File name too long|no file"),
    "too long a path": ("a.b/" * 3000 + "c.png", "File name too long"),
    "NUL": ("a\0.png", "control character"),
    "line break": ("a\nb.png", "several lines"),
    "a surrogate": ("a\udce9.png", "half a character"),
    "a folder": ("folder", "no file .*it is a folder"),
    "the folder itself": (".", "no file .*it is a folder"),
    "below a file": ("source.png/a.png", "no file|Not a directory"),
    "a circle of links": ("circle.png", "no file|symbolic links"),
    "a dangling link": ("dangling.png", "no file"),
    "a pipe": ("pipe.png", "no file"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["source", "mask", "target"])
def test_what_the_file_system_refuses_is_refused_by_row(lines, tmp_path: Path, name: str, field: str) -> None:
    cell, said = NAMES[name]
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    path = lines({field: cell}, {})
    with pytest.raises(DataError, match=rf"'t0' \(.*line 1\): the {field}.*({said})") as error:
        load_tasks(source_of(path))
    assert len(str(error.value)) < 1000
    assert [task.task_id for task in load_tasks(source_of(path, on_bad_task="skip"))] == ["t1"]


def test_a_file_that_must_not_be_read_is_refused_by_row(lines, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines({}, {"source": "secret.png"}, files={"secret.png": SOURCE})
    opened = Path.open

    def guarded(self: Path, *arguments: str, **options: object):
        if self.name == "secret.png":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", guarded)
    with pytest.raises(DataError, match=r"'t1' .*the source: cannot read .*secret.png \(Permission denied\)"):
        load_tasks(source_of(path))


def test_a_link_is_followed_as_those_of_the_hubs_cache_must_be(lines, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs/0a1b").write_bytes(SOURCE)
    (tmp_path / "snapshot").mkdir()
    path = lines({"source": "linked.png"}).rename(tmp_path / "snapshot/tasks.jsonl")
    for name in ("mask.png", "target.png"):
        (tmp_path / name).rename(tmp_path / "snapshot" / name)
    (tmp_path / "snapshot/linked.png").symlink_to("../blobs/0a1b")
    assert load_tasks(source_of(path))[0].source == SOURCE


@pytest.mark.parametrize("field", ["source", "mask", "target"])
@pytest.mark.parametrize("head", [SOURCE, b"BM", b"no image"])
def test_a_file_of_terabytes_is_refused_unread(lines, tmp_path: Path, head: bytes, field: str) -> None:
    (tmp_path / "huge.png").write_bytes(head)
    os.truncate(tmp_path / "huge.png", 2**42)
    path = lines({}, {field: "huge.png"})
    with pytest.raises(DataError, match=rf"'t1' .*the {field}: cannot read .*it has 4398046511104 bytes"):
        load_tasks(source_of(path))
    assert len(load_tasks(source_of(path, on_bad_task="skip"))) == 1


@pytest.mark.parametrize("cell", [b"images/1.png", ENCODED.encode(), b"<svg/>"])
def test_bytes_that_are_no_image_are_shown_by_how_they_begin(table, cell: bytes) -> None:
    path = table(source=[cell], mask=[MASK], instruction=["a"])
    with pytest.raises(DataError, match=r"the source is not a readable image: it begins with b'") as error:
        load_tasks(source_of(path))
    assert repr(cell[:8])[1:-1] in str(error.value)
    assert "object at 0x" not in str(error.value)


@given(st.one_of(st.text(max_size=400), st.binary(max_size=50), st.lists(st.text()), st.floats(), st.booleans()))
def test_any_cell_is_a_picture_or_nothing_or_a_short_reason(cell: object) -> None:
    def look() -> None:
        if found := picture(cell, Path("/data/set"), "source"):
            found.check()

    if (reason := reason_of(look)) is not None:
        assert len(reason) < 1200
        reason.encode()


@pytest.mark.parametrize("cell", ["", "  ", "\n"])
def test_a_blank_cell_names_no_file(cell: str) -> None:
    assert picture(cell, Path("/data/set"), "mask") is None


@pytest.mark.parametrize("name", ["12.png", "1 2.png", "a b.png", "ü/ん.png", "9j", "x" * 90 + ".png", "data/1.png"])
def test_unusual_names_are_names(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(SOURCE)
    found = picture(name, tmp_path, "source")
    assert found is not None
    assert found.read() == SOURCE
