"""What an example needs is there: in the checkout, or left by an example before it.

Whether it then does what the page says is the business of `tests/integration/test_documented_commands.py`, which runs
them all.
"""

import ast
import builtins
import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from benchmarks.quote import ROOT
from deploy.configs import PACKAGED
from rc_grpo.config.files import load
from tests.documented import EXECUTED, GRADES, PAGES, SITTINGS, Example, Shown, examples, shown, treatments

READ = re.compile(
    r"(?:runs|bench|study|judges|mine)(?:/[\w.-]+)*|(?!https?:)[\w./-]+\.(?:png|jpg|jsonl|yaml|html|json)"
)
OF_THE_MACHINE = ("/data/", "/tmp/ray/", "/usr/share/", "/etc/")
"""What a page says that its reader has."""
NOT_OF_A_CHECKOUT = ("runs", "build", "bench/", "study", "mine")
"""What may lie about here all the same."""
LEFT_BY = (
    (r"make train RUN=([\w-]+)", "runs/{}"),
    (r"rc-grpo train .*--set name=([\w-]+)", "runs/{}"),
    (r"rc-grpo .*--(?:out|sheet) ([\w./-]+)", "{}"),
    (r"rc-grpo merge-judge \S+ \S+ (\S+)", "{}"),
    (r"rc-grpo evaluate pocket --compbench (\S+) --pocket", "{}"),
    (r"rc-grpo evaluate (pocket) --compbench bench --pocket", "bench/editing_results/{}"),
    (r"rc-grpo evaluate pocket --compbench bench --lora runs/([\w-]+)/lora", "bench/editing_results/{}"),
    (r"mkdir -p (mine)/images", "{}"),
)
"""What a command leaves, and where it is put."""


def left_by(command: Shown) -> set[str]:
    text = " ".join(command.text.replace("\\\n", " ").split())
    found = {place.format(match[1]) for pattern, place in LEFT_BY if (match := re.search(pattern, text))}
    return found | set(re.findall(r"> ([\w./-]+)", text))


def missing(commands: Iterable[Shown]) -> Iterator[str]:
    """Yield what commands read that neither the checkout nor a command before them has."""
    there: set[str] = set()
    for command in commands:
        there |= left_by(command)
        for word in re.split(r"[\s='\"{},]+", command.command):
            if READ.fullmatch(word) and not word.startswith(OF_THE_MACHINE) and not is_there(word, there):
                yield f"{command.page}: {word} of {command.command}"


def is_there(word: str, left: set[str]) -> bool:
    inside = any(f"{word}/".startswith(f"{place}/") or place.startswith(f"{word}/") for place in left)
    return inside or ((ROOT / word).exists() and not word.startswith(NOT_OF_A_CHECKOUT))


def commands_of(pages: Iterable[str]) -> Iterator[Shown]:
    return (command for page in pages for example in examples(ROOT / page) for command in example.commands)


ALONE = [(name,) for page in PAGES if not any((name := str(page.relative_to(ROOT))) in pages for pages in SITTINGS)]


@pytest.mark.parametrize("pages", [*SITTINGS, *ALONE], ids=lambda pages: pages[0])
def test_what_an_example_reads_is_there_or_was_left_before(pages: tuple[str, ...]) -> None:
    assert list(missing(commands_of(pages))) == []


@pytest.mark.parametrize(
    "line",
    [
        "rc-grpo inspect runs/my-run",
        "rc-grpo edit photo.png 'Add a cat'",
        "rc-grpo study results study",
        "rc-grpo study serve --tasks bench --out study --edits base=bench/editing_results/pocket",
        "rc-grpo train flux_kontext_dev --set reward.judges.editscore.model=judges/editscore-7b",
        "rc-grpo inspect pocket --tasks 1 --set 'data.train={format: jsonl, path: mine/tasks.jsonl}'",
        "tensorboard --logdir runs",
        "cp pictures/1.jpg here",
    ],
)
def test_what_nobody_made_is_missed(line: str) -> None:
    words = tuple(shlex.split(line))
    assert list(missing([Shown("page", line, words)]))
    assert not list(missing([Shown("page", "rc-grpo config pocket", ("rc-grpo", "config", "pocket"))]))


def test_every_page_with_an_example_that_is_executed_is_read_in_a_sitting() -> None:
    executed = {command.page for command in shown() if treatments(command)[0] in EXECUTED}
    assert executed <= {page for pages in SITTINGS for page in pages}


def test_a_python_example_imports_what_it_uses() -> None:
    found = [example for page in PAGES for example in examples(page) if example.python]
    assert len(found) >= 3
    for example in found:
        tree = ast.parse(example.python)
        bound = {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", ())}
        bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        bound |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert used <= bound | set(dir(builtins)), f"{example.page}: {used - bound}"


YAML = re.compile(r"^( *)```yaml\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PARTS = [
    pytest.param(textwrap.dedent(text), id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, (_, text) in enumerate(YAML.findall(page.read_text()))
]


@pytest.mark.parametrize("text", PARTS)
def test_a_yaml_example_is_a_configuration_or_prompts(text: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(text)
    (tmp_path / "own.yaml").write_text(text)
    if tree.keys() == {"sc", "pq"}:
        return
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump({"extends": "flux_kontext_dev"} | tree))
    assert load(tmp_path / "whole.yaml", (), PACKAGED).name


GRADED = [example for page in PAGES for example in examples(page) if example.commands]


@pytest.mark.parametrize("example", GRADED, ids=lambda example: f"{example.page}: {example.commands[0].command}")
def test_a_block_with_a_command_that_is_less_than_measured_says_so_below(example: Example) -> None:
    said = next((grade for grade in GRADES if example.after.startswith(f"*{grade.capitalize()}*")), None)
    assert said == (example.grade if GRADES.index(example.grade) > GRADES.index("measured") else None)
