"""Kinds of judges that other packages bring: found, validated by their own class, kept in config.yaml."""

import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest
import yaml
from pydantic import BaseModel

from deploy.configs import load_config
from rc_grpo.config import ConfigError, JudgePlugin, dump, dump_judge, parse, parse_judge
from rc_grpo.config.judges import plugin

Install = Callable[..., None]
COLOUR = Path(__file__).parents[1] / "colour_judge"
RED = {"kind": "colour", "colour": [220, 30, 30]}


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what installs entry points of the judges' group, each with the package that it is of."""
    monkeypatch.syspath_prepend(str(COLOUR))

    def as_installed(*entries: tuple[str, str, str]) -> None:
        found = [EntryPoint(name, value, plugin.GROUP)._for(SimpleNamespace(name=of)) for name, value, of in entries]  # type: ignore[attr-defined]
        monkeypatch.setattr(plugin, "entry_points", lambda group: found)

    as_installed(("colour", "colour_judge:ColourConfig", "colour-judge"))
    return as_installed


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what makes a module ``theirs`` of a text."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> None:
        (tmp_path / "theirs.py").write_text("from typing import Any\nfrom rc_grpo.config import *\n" + dedent(text))
        sys.modules.pop("theirs", None)

    return write


def judged(**judges: object) -> tuple[str, ...]:
    return ("reward.judges=" + yaml.safe_dump(judges, default_flow_style=True, width=10_000),)


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize("kind", ["colour", "colour_judge:ColourConfig"])
def test_a_foreign_judge_is_configured_by_its_own_class_and_kept_in_config_yaml(kind: str) -> None:
    config = load_config("pocket", judged(red={**RED, "kind": kind}, truth={"kind": "ground_truth", "weight": 0}))
    red = config.reward.judges["red"]
    assert type(red).__name__ == "ColourConfig"
    assert (red.colour, red.half_at, red.workers) == ((220, 30, 30), 64.0, 1)  # type: ignore[union-attr]
    written = dump(config)
    assert yaml.safe_load(written)["reward"]["judges"]["red"]["colour"] == [220, 30, 30]
    assert parse(yaml.safe_load(written)) == config


@pytest.mark.usefixtures("install")
def test_what_crosses_processes_is_plain_values_and_reads_back_to_the_same() -> None:
    red = parse_judge(RED)
    assert parse_judge(dump_judge(red)) == red
    assert set(map(type, dump_judge(red).values())) <= {str, int, float, list, dict, type(None)}
    truth = parse_judge({"kind": "ground_truth", "resources": {"num_cpus": 0.5}})
    assert parse_judge(dump_judge(truth)) == truth


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"color": [1, 2, 3]}, r"reward\.judges\.red\.color: Extra inputs"),
        ({"colour": [1, 2, 300]}, r"reward\.judges\.red\.colour\.2: .*less than or equal to 255"),
        ({"half_at": 0}, r"reward\.judges\.red\.half_at: .*greater than 0"),
        ({"half_at": True}, r"reward\.judges\.red: .*half_at takes no true or false"),
        ({"workers": 0}, r"reward\.judges\.red\.workers"),
        ({"weight": -1}, r"reward\.judges\.red\.weight"),
    ],
)
def test_what_does_not_fit_a_foreign_judge_is_named_by_key(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("pocket", judged(red=RED | change))


@pytest.mark.usefixtures("install")
def test_a_foreign_judge_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_judge(RED).weight = 2.0  # type: ignore[misc]


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("color", r"no judge is of kind 'color'; built in: ground_truth, editscore.*; installed: colour\. Install the"),
        ("Colour", r"no judge is of kind 'Colour'"),
        ("", r"no judge is of kind ''"),
        ("colour_judge", r"or name a class as package\.module:Class"),
        ("no_such_package:Judge", r"'no_such_package:Judge' \(ModuleNotFoundError: .*install its package here and on"),
        ("colour_judge:Missing", r"\(AttributeError: .*Missing"),
        ("colour_judge:", r"is no dotted path"),
        (":Class", r"is no dotted path"),
        (".theirs:Class", r"is no dotted path"),
        ("a:b:c", r"is no dotted path"),
        ("os:system('true')", r"is no dotted path"),
        ("colour_judge:Level", r"is no subclass of rc_grpo\.config\.JudgePlugin"),
        ("rc_grpo.config:EditScoreConfig", r"is no subclass of rc_grpo\.config\.JudgePlugin"),
        ("rc_grpo.config:JudgePlugin", r"has no method `make`"),
    ],
)
def test_a_kind_that_is_not_to_be_had_says_what_is_and_the_way_out(kind: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.judges\.red: ") as error:
        load_config("pocket", judged(red=RED | {"kind": kind}))
    assert re.search(said, str(error.value))
    assert len(str(error.value).splitlines()) == 2


def test_nothing_installed_is_said(install: Install) -> None:
    install()
    with pytest.raises(ConfigError, match=r"no judge is of kind 'colour'; .*installed: none"):
        parse_judge(RED)


def test_two_packages_of_one_kind_are_named(install: Install) -> None:
    install(("colour", "colour_judge:ColourConfig", "one"), ("colour", "theirs:Config", "other"))
    with pytest.raises(ConfigError, match=r"two packages bring a judge of kind 'colour': one and other; uninstall one"):
        parse_judge(RED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise RuntimeError('no\\nGPU')", r"\(RuntimeError: no GPU\)"),
        ("import nothing_of_the_sort", r"\(ModuleNotFoundError: No module named 'nothing_of_the_sort'\)"),
        ("class Config(JudgePlugin", r"\(SyntaxError: "),
        ("class Config(JudgePlugin, extra='allow'):\n    def make(self): ...", r"must stay frozen and forbid unknown"),
        ("class Config(JudgePlugin, frozen=False):\n    def make(self): ...", r"must stay frozen and forbid unknown"),
        ("class Config(JudgePlugin): ...", r"has no method `make`"),
        ("class Config: ...", r"is no subclass of"),
        (
            "class Config(JudgePlugin):\n    def make(self): ...\n    def model_post_init(self, _): raise KeyError(1)",
            r"cannot be configured \(KeyError: 1\)",
        ),
    ],
)
def test_a_class_that_cannot_be_used_is_one_line(module: Callable[[str], None], text: str, said: str) -> None:
    module(text)
    with pytest.raises(ConfigError, match=said):
        parse_judge({"kind": "theirs:Config"})


def test_a_package_that_this_process_lacks_is_a_configuration_that_does_not_fit(install: Install) -> None:
    tree = dump_judge(parse_judge(RED))
    install()
    with pytest.raises(ConfigError, match="no judge is of kind 'colour'"):
        parse_judge(tree)


def test_a_foreign_class_is_a_model_of_plain_pydantic() -> None:
    assert issubclass(JudgePlugin, BaseModel)
    assert JudgePlugin.model_config["extra"] == "forbid"
    assert JudgePlugin.model_config["frozen"] is True
