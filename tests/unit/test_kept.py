"""A file of ours that is not what was written is refused by name, with what is wrong and the way out, in a line."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from rc_grpo.kept import DamagedFileError, Form, read_json, read_yaml
from rc_grpo.yaml_text import YamlError, parse_yaml
from tests.fuzz.target import ask


class Told(Form):
    update: int
    by: dict[str, float] = Field(default_factory=dict)


GOOD = {"update": 3, "by": {"a": 1, "b": float("nan")}, "of a later version": [None]}
BROKEN = {
    "empty": b"",
    "cut": b'{"update": 3',
    "a page": b"<!doctype html>",
    "a list": b"[3]",
    "null": b"null",
    "no key": b"{}",
    "text for a number": b'{"update": "3"}',
    "truth for a number": b'{"update": true}',
    "a fraction": b'{"update": 3.5}',
    "another type within": b'{"update": 3, "by": {"a": "x"}}',
    "half an emoji": b'{"update": 3, "note": "\\ud83d"}',
    "latin-1": b'{"update": 3, "note": "caf\xe9"}',
    "brackets": b'{"update": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
    "digits": b'{"update": ' + b"9" * 5000 + b"}",
}


def test_what_was_written_is_read_as_it_was_with_what_no_form_names(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    path.write_text(json.dumps(GOOD))
    assert repr(read_json(path, Told, "")) == repr(GOOD)
    path.write_text(yaml.safe_dump(GOOD))
    assert repr(sorted(read_yaml(path, Told, "").items())) == repr(sorted(GOOD.items()))


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / "told.json"
    path.write_bytes(BROKEN[name])
    with pytest.raises(DamagedFileError, match=r"told\.json is damaged \(.+\); remove it$") as error:
        read_json(path, Told, "remove it")
    said = str(error.value)
    said.encode()
    assert "\n" not in said
    assert len(said) < 600 + len(str(path))


def test_what_is_no_file_is_damaged_too(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("folder", "loop", "nowhere"):
        with pytest.raises(DamagedFileError, match=f"{name} is damaged"):
            read_json(tmp_path / name, Told, "")


@pytest.mark.parametrize(
    "text",
    [
        "{x", "!!timestamp x", "!!int _", "!!bool maybe", "2026-99-99", "!!float .", "? {a: b}\n: c", "a: 1\na: 2",
        "!!python/object/apply:os.system [id]", "{" * 1000, "\x00", "!!binary \u00e9",
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_said_in_a_line_whatever_the_parser_makes_of_it(text: str, tmp_path: Path) -> None:
    with pytest.raises(YamlError, match=r"^[^\n]*not YAML[^\n]*$"):
        parse_yaml(text)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DamagedFileError, match=r"config\.yaml is damaged"):
        read_yaml(tmp_path / "config.yaml", Told, "")


def test_yaml_of_another_encoding_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"a: caf\xe9")
    with pytest.raises(DamagedFileError, match=r"config\.yaml is damaged"):
        read_yaml(tmp_path / "config.yaml", Told, "")


@pytest.mark.parametrize(
    "text", ["update: 3\nwhen: 2026-01-01", "update: 3\n4: x", "&a {update: 3, b: *a}", "update: 3\nx: !!set {a}"]
)
def test_yaml_that_json_does_not_hold_is_none_of_ours(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(DamagedFileError):
        read_yaml(tmp_path / "config.yaml", Told, "")


@given(st.text(max_size=60))
def test_no_text_is_another_error(text: str) -> None:
    ask(lambda: parse_yaml(text), YamlError)
