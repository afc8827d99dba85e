"""The documentation builds, loads nothing from elsewhere, and names commands, keys and metrics that exist.

What is promised of a command here (`rc-grpo` or the job's entry point, in a ``bash`` block): it is there, takes these
arguments and options, and its ``--set`` fit the configuration it names. Whether it then does what the page says is the
business of the tests that run commands.
"""

import html
import json
import logging
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import typer
from mkdocs.commands.build import build
from mkdocs.config import load_config as load_site
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from benchmarks.quote import ROOT
from deploy import train
from deploy.batches.ledger import Ledger
from deploy.cli import app
from deploy.configs import load_config
from deploy.records.metrics import pace_metrics
from rc_grpo.algorithm.rewards import SkipReason
from rc_grpo.config import ConfigError, RunConfig
from reward_service.serving.server_metrics import SUMMARY
from tests.documented import ELSEWHERE, EXECUTED, Shown, shown, treatments
from tests.integration.series import RECORDED

JOB = "python -m deploy.train"


class Warnings(logging.Handler):
    """Collects what mkdocs has to complain about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    warnings = Warnings()
    logging.getLogger("mkdocs").addHandler(warnings)
    try:
        build(load_site(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    finally:
        logging.getLogger("mkdocs").removeHandler(warnings)
    assert not warnings.said
    return folder


def test_it_builds_without_a_warning_and_every_page_of_docs_is_in_its_navigation(site: Path) -> None:
    menu = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        path = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix().replace("README.html", "index.html")
        assert f'href="{path}"' in menu or path == "index.html", f"{page} is not in mkdocs.yml's nav"


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    loaded = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(?:https?:)?//[^"]+"')
    for page in site.rglob("*.html"):
        assert not loaded.search(page.read_text()), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", sheet.read_text()), sheet


def test_no_formula_is_left_as_latex(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert 'class="arithmatex"' not in page.read_text(), page


def fields(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of the configuration, found without the code that writes the reference."""
    for name, field in model.model_fields.items():
        yield f"{path}{name}", field
        for kind, section in sections(field.annotation):
            yield from fields(section, f"{path}{name}.{kind}")


def sections(annotation: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        kind = annotation.model_fields.get("kind")
        yield ("" if kind is None else f"{get_args(kind.annotation)[0]}."), annotation
    for part in get_args(annotation):
        yield from sections(part)


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())


def test_every_key_of_the_configuration_is_in_the_reference_with_all_that_is_said_of_it(site: Path) -> None:
    page = (site / "reference/config.html").read_text()
    text, found = text_of(page), dict(fields(RunConfig))
    assert "reward.judges.editscore.server.tensor_parallel" in found
    assert not [key for key in found if f'id="{key}"' not in page]
    assert not [key for key, field in found.items() if text_of(field.description or "").replace("`", "") not in text]


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/cli.html").read_text()
    for name, command in commands():
        if name == JOB:
            continue
        assert f'id="{name.replace(" ", "-")}"' in page
        for parameter in command.params:
            assert parameter.name == "help" or parameter.opts[0].upper() in page.upper()


def commands() -> Iterator[tuple[str, Any]]:
    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for word, child in command.commands.items():
                yield from below(f"{name} {word}", child)
        else:
            yield name, command

    job = typer.Typer(add_completion=False)
    job.command()(train.main)
    yield from below("rc-grpo", typer.main.get_command(app))
    yield from below(JOB, typer.main.get_command(job))


def shown_commands() -> Iterator[Any]:
    for command in shown():
        words = list(command.words)
        if JOB in command.command:
            words = words[words.index("deploy.train") - 2 :]
        if " ".join(words).startswith(("rc-grpo ", JOB)):
            yield pytest.param(words, id=f"{command.page}: {' '.join(words)}")


@pytest.mark.parametrize("command", shown(), ids=lambda command: f"{command.page}: {command.command}")
def test_a_command_that_is_shown_is_executed_by_a_test_or_known_to_be_none_for_it(command: Shown) -> None:
    assert len(treatments(command)) == 1


def test_no_treatment_is_for_nothing() -> None:
    used = {pattern for command in shown() for pattern in treatments(command)}
    assert {*EXECUTED, *ELSEWHERE} == used


def test_a_make_target_that_is_shown_is_there() -> None:
    for target in {command.words[1] for command in shown() if command.words[0] == "make"}:
        subprocess.run(["make", "-n", "-C", str(ROOT), target], check=True, capture_output=True)


@pytest.mark.parametrize("words", shown_commands())
def test_a_command_that_is_shown_can_be_given(words: list[str]) -> None:
    name, command = max(
        (entry for entry in commands() if words[: len(entry[0].split())] == entry[0].split()),
        key=lambda entry: len(entry[0]),
        default=(None, None),
    )
    assert name is not None, "there is no such command"
    given = command.make_context(name, words[len(name.split()) :]).params
    overrides = given.get("set_")
    config = given.get("config") or "pocket"
    # A file on the machine that the page is about.
    if not Path(config).is_absolute():
        load_config(config, overrides)


def test_a_wrong_command_is_noticed() -> None:
    with pytest.raises(AssertionError, match="no such command"):
        test_a_command_that_is_shown_can_be_given(["rc-grpo", "trian", "pocket"])
    with pytest.raises(Exception, match="--sett"):
        test_a_command_that_is_shown_can_be_given(["rc-grpo", "train", "pocket", "--sett", "a=1"])
    with pytest.raises(ConfigError, match="stepz"):
        test_a_command_that_is_shown_can_be_given(["rc-grpo", "train", "pocket", "--set", "rollout.stepz=1"])


def test_keys_that_the_pages_name_exist() -> None:
    known = dict(fields(RunConfig)).keys()
    trees = {key.split(".")[0] for key in known}
    for page in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`([a-z]+(?:\.\w+)+)(?:: [^`]*)?`", page.read_text()):
            if name.split(".")[0] in trees and not name.endswith((".py", ".yaml", ".json", ".jsonl", ".parquet")):
                told = name.replace("reward.judges.NAME", "reward.judges.editscore")
                assert told in known, f"{page.name} names {name}"


def logged() -> set[str]:
    """Return the metrics' names of a run that was made, and of what a clock has a hand in."""
    series = json.loads(RECORDED.read_text())["figures"]
    rollouts: Any = SimpleNamespace(sync_seconds={}, proofs={})
    pace = pace_metrics(1.0, {"rollouts": 0.5, "scores": 0.0}, Ledger(1, 1, 1, 0, 0).counts, rollouts)
    names = {name for figures in series.values() for name in figures if "/" in name}
    return names | pace.keys()


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    explained = {re.sub("NAME|PART|POOL", "*", name) for name in re.findall(r"`([a-z_.]+/[\w/.*-]+)`", page)}
    names = logged()
    assert {"reward/task_mean", "seconds/update_total", "heldout/reward", "update/first_step/kl"} <= names
    for name in names:
        assert any(fnmatchcase(name, pattern) for pattern in explained), f"docs/metrics.md does not explain {name}"
    for reason in get_args(SkipReason):
        assert f"groups_skipped/{reason}" in explained
    assert {"requests_running", "requests_waiting"} <= set(SUMMARY.values())
