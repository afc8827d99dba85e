"""Whatever lies in a run's folder, the page stays up, shows what can be read, and names what cannot."""

import shutil
from pathlib import Path

import pytest

from deploy.records.folder import RunFolder
from deploy.records.metrics import METRICS
from deploy.watch.view import View
from tests.unit.deploy.report.folders import write_run
from tests.unit.deploy.watch.watched import log_groups, status


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", updates=2, every=1, logged=0, finished=False)
    log_groups(run, 2, size=3)
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("environment.json", "[]"),
        ("summary.json", "{}"),
        ("summary.json", "<html>"),
        ("cluster.json", '{"address": 3}'),
        ("config.yaml", "seed: 1"),
        ("config.yaml", "a: [b"),
        ("evaluations/update-00002.json", "{}"),
        ("evaluations/update-00001.json", "\x00"),
    ],
)
def test_a_damaged_file_is_named_and_what_was_drawn_before_stays(run: Path, name: str, text: str) -> None:
    view = View(RunFolder(run))
    (run / name).write_text(text)
    parts = view.live(None, "nobody answers")
    drawn = view.drawn() if name != "cluster.json" else parts
    assert Path(name).name in drawn["remarks"] + parts["head"]
    assert "curves" not in drawn


def test_a_line_of_metrics_that_is_damaged_takes_nothing_else_from_the_page(run: Path) -> None:
    with (run / METRICS).open("a") as lines:
        lines.write("<html>\n")
    view = View(RunFolder(run))
    parts = view.live(status(run), "")
    assert METRICS in parts["remarks"]
    assert "2 <small>of 40" in parts["head"]


def test_a_folder_that_is_gone_leaves_a_page_that_says_so(run: Path) -> None:
    view = View(RunFolder(run))
    view.live(None, "nobody answers")
    shutil.rmtree(run)
    assert "0 <small>of 2" in view.live(None, "nobody answers")["head"]
    assert "config.yaml" in view.drawn()["remarks"]


def test_a_run_without_an_update_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "new", updates=0, every=1, logged=0, finished=False, overrides=("loop.updates=5",))
    view = View(RunFolder(run))
    assert "0 <small>of 5" in view.live(status(run, updates=5, version=None, groups={}, pools={}, waits=[]), "")["head"]
    drawn = view.drawn()
    assert "No group is logged yet" in drawn["groups"]
    assert "Known after the first update" in drawn["time"]
    assert "remarks" in drawn


def test_what_did_not_change_is_not_drawn_again(run: Path) -> None:
    view = View(RunFolder(run))
    view.live(None, "")
    (run / "evaluations" / "update-00002.json").write_text("{}")
    assert not view.drawn_already
    view.drawn()
    view.live(None, "")
    assert view.drawn_already
    log_groups(run, 3, size=3)
    assert not view.drawn_already
