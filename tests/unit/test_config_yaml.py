"""YAML that cannot be read is one line that says where: the option or the file, line and column. Never a traceback."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from deploy.cli import app
from deploy.configs import load_config
from deploy.records.resuming import resumed_config
from rc_grpo.config import ConfigError, dump, load
from rc_grpo.config.reading import read_mapping, read_yaml

BROKEN = {
    "an open brace": ("{x", 1, 3),
    "an open bracket on the second line": ("a: 1\nb: [2", 2, 6),
    "an open quote": ("a: 'x", 1, 6),
    "a tab before a key": ("rollout:\n\tsteps: 3", 2, 1),
    "two colons": ("a: b: c", 1, 5),
    "a key twice": ("seed: 1\nname: x\nseed: 2", 3, 1),
    "a key twice, deep": ("a:\n  b: {c: 1, d: 2, c: 3}", 2, 19),
    "an anchor that is none": ("a: *gone", 1, 4),
    "an object of Python's": ("a: !!python/object/apply:os.system [ls]", 1, 4),
    "a list for a key": ("? [a, b]\n: 1", 1, 3),
    "a date that is none": ("a: 2001-99-99", 1, 4),
    "a tag that does not fit": ("a: 1\nb: !!int x", 2, 4),
    "a switch that is none": ("a: !!bool x", 1, 4),
    "a number of 5000 digits": ("a: " + "1" * 5000, 1, 4),
    "a second document": ("a: 1\n---\nb: 2", 2, 1),
    "a less-indented key": ("a:\n    b: 1\n  c: 2", 3, 3),
}


@pytest.mark.parametrize(("text", "line", "column"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, column: int) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as said:
        load(path)
    assert str(said.value).startswith(f"{path}, line {line}, column {column}: not YAML: ")
    assert "\n" not in str(said.value)
    base = tmp_path / "top.yaml"
    base.write_text("extends: mine")
    with pytest.raises(ConfigError, match=r"mine\.yaml, line"):
        load(base)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("loop.feed={x", "loop.feed={x"),
        ("loop.feed=[", "loop.feed=["),
        ("learner.betas=[0.9, 0.9", "learner.betas"),
        ("name='x", "name='x"),
        ("rollout={steps: 3, steps: 4}", "'steps' is there twice"),
        ("seed=!!python/name:os.system", "seed="),
        ("seed=*x", "seed=*x"),
        ("seed=a: b: c", "seed=a: b"),
        ("seed=2001-13-01", "is no timestamp"),
        ("loop.updates", "a.b=value"),
        ("=3", "a.b=value"),
        ("", "a.b=value"),
        ("loop..updates=3", "a.b=value"),
        (".seed=3", "a.b=value"),
        ("loop.=3", "a.b=value"),
    ],
)
def test_a_broken_override_is_one_line_on_stderr_and_exit_2(override: str, named: str) -> None:
    result = CliRunner().invoke(app, ["config", "pocket", "--set", override])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert named in result.stderr
    assert ("line 1, column" in result.stderr) == ("a.b=value" not in result.stderr)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold a mapping .*, not nothing"),
        (b"# only words\n", "not nothing"),
        (b"- a\n- b\n", "not a list"),
        (b"just words", "not a str"),
        (b"3", "not a int"),
        (b"a: 1\nname: \xe9t\xe9\n", "line 2: not UTF-8"),
        ("a: 1\n".encode("utf-16"), "not UTF-8"),
        (b"a: 1\nb: \x00\n", r"line 2: not YAML: special characters are not allowed: #x0"),
        (b"1: 2", "the key 1 is no name"),
        (b"[" * 3000, "nested too deeply"),
    ],
)
def test_a_file_of_another_kind_says_which(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refused:
        load_config(str(path))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_runs_own_configuration_that_was_spoilt_is_named_with_its_place(tmp_path: Path) -> None:
    text = dump(load_config("pocket"))
    (tmp_path / "config.yaml").write_text(text + "seed: 3\n")
    with pytest.raises(
        ConfigError, match=rf"config\.yaml, line {text.count(chr(10)) + 1}, column 1: .*'seed' is there"
    ):
        resumed_config(tmp_path)
    result = CliRunner().invoke(app, ["replay", str(tmp_path), "1/a"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "config.yaml, line" in result.stderr


def test_a_folder_or_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mapping(tmp_path)


def test_what_yaml_offers_stays(tmp_path: Path) -> None:
    text = "base: &b {a: 1, c: [x, 2.5]}\nmore: {<<: *b, a: 2}\nnone: null\nflag: true\n"
    assert read_yaml(text, "x") == yaml.safe_load(text)


def error_of(text: str) -> str | None:
    try:
        read_yaml(text, "here")
    except ConfigError as error:
        return str(error)
    return None


@given(st.text(max_size=40) | st.text("{}[]:,-&*!%@'\"#|>? \n\tab1", max_size=30))
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    said = error_of(text)
    assert said is None or (said.startswith("here") and "\n" not in said)


@pytest.mark.parametrize("extended", ["''", "[pocket]", "7", "..", "/", "x" * 5000, "'a\0b'"])
def test_what_extends_no_configuration_is_refused_by_file(extended: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(f"extends: {extended}\nname: own\n")
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load(path, library=tmp_path)


@pytest.mark.parametrize("value", ["!!int _", "!!float _", "!!int ''", "!!bool maybe", "!!timestamp x"])
def test_a_tag_that_does_not_fit_its_value_is_told_with_the_option(value: str) -> None:
    with pytest.raises(ConfigError, match=r"--set .cluster=!!"):
        load_config("pocket", [f"cluster={value}"])
