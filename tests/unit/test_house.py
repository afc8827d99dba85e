"""The shape of the house: no circle among modules, no full room, no long file, no family named outside its folder."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("rc_grpo", "rollout_workers", "reward_service", "learner", "deploy")
LONGEST, FULLEST = 350, 12
FAMILY = re.compile(r"Kontext|Flux|FLUX|QwenImage|QwenEdit")
AT_HOME = ("rc_grpo/editor/families", "rc_grpo/pocket", "deploy/configs")
"""Where a family may be named: its own folder, the pocket editor (which is a model of one), packaged configurations."""


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return what each module of the product imports of the product."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {name: frozenset(graph.find_modules_directly_imported_by(name)) for name in graph.modules}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(imports()).prepare()  # raises CycleError, which names the circle


def test_no_file_is_longer_than_one_concept() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {path: lines for path, lines in long.items() if lines > LONGEST} == {}
    assert long["deploy/run/run.py"] <= 150


def test_no_room_of_the_roof_holds_more_than_one_idea() -> None:
    rooms = [folder for folder in (ROOT / "deploy").rglob("*") if folder.is_dir()]
    modules = {str(room.relative_to(ROOT)): len([*room.glob("*.py")]) for room in (ROOT / "deploy", *rooms)}
    assert {room: count for room, count in modules.items() if count > FULLEST + 1} == {}  # one is its __init__


def test_a_family_of_editors_is_named_in_its_own_folder_alone() -> None:
    named = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        if not str(path.relative_to(ROOT)).startswith(AT_HOME)
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if FAMILY.search(line)
    ]
    assert named == []


def test_a_run_is_handed_to_nobody_but_its_own_loop() -> None:
    taking = []
    for path in sources():
        if path.is_relative_to(ROOT / "deploy/run") or path == ROOT / "deploy/loop.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                said = {re.sub(r"['\"]", "", ast.unparse(arg.annotation)) for arg in every if arg.annotation}
                if "Run" in said:
                    taking.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert taking == []


@pytest.mark.parametrize("folder", ["deploy", "rc_grpo", "learner", "rollout_workers", "reward_service"])
def test_a_folder_says_what_it_does_not_do(folder: str) -> None:
    readmes = [*(ROOT / folder).rglob("README.md")]
    assert ROOT / folder / "README.md" in readmes
    assert "**Not here.**" in (ROOT / folder / "README.md").read_text()
