"""What trackers may do to a run, and what not: with trackers that fail, hang, and are not there."""

import asyncio
import importlib.util
import json
import logging
import threading
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from deploy.configs import load_config
from deploy.errors import mendable
from deploy.records.folder import RunFolder
from deploy.records.metrics import MetricsLog
from deploy.stopping import RunStoppedError
from deploy.tracking import courier
from deploy.tracking.tracker import Ending, TrackerError
from deploy.tracking.trackers import CLASSES, Trackers, check_trackers
from rc_grpo.config import ConfigError

BOTH = load_config("pocket", ["output.trackers=[wandb, mlflow]"])


class Notes:
    """A tracker that writes down what it gets, and fails in the calls that are named."""

    def __init__(self, *failing: str) -> None:
        self.got: list[tuple[Any, ...]] = []
        self.failing = set(failing)

    def _take(self, call: str, *what: Any) -> None:
        if call in self.failing:
            raise ConnectionError("no route to host")
        self.got.append((call, *what))

    def open(self, run_id: str | None) -> str:
        self._take("open", run_id)
        return run_id or "the-id"

    def metrics(self, update: int, values: Mapping[str, float]) -> None:
        self._take("metrics", update, dict(values))

    def grid(self, update: int, path: Path) -> None:
        self._take("grid", update)

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        self._take("summary", update)

    def close(self, ending: Ending) -> None:
        self._take("close", ending)


def tracked(folder: Path, wandb: Any, mlflow: Any) -> Trackers:
    made = {"wandb": wandb, "mlflow": mlflow}
    return Trackers(BOTH, folder, lambda name, config, files: made[name])


def test_none_is_named_by_default_and_then_nothing_is_left_of_them(tmp_path: Path) -> None:
    with Trackers(load_config("pocket"), tmp_path) as trackers:
        trackers.metrics("update", 1, {"a": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["[comet]", "[wandb, wandb]"])
def test_a_tracker_that_is_unknown_or_named_twice_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"output"):
        load_config("pocket", [f"output.trackers={value}"])


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("found", [None, ModuleSpec("a folder of that name", None)], ids=["nothing", "a folder"])
def test_a_tracker_that_is_not_installed_is_refused_before_the_start(
    name: str, found: ModuleSpec | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: found)
    config = load_config("pocket", [f"output.trackers=[{name}]"])
    with pytest.raises(TrackerError, match=rf"{name}, which is not installed: pip install 'rc-grpo\[{name}\]'"):
        check_trackers(config.output)
    assert TrackerError in mendable()


def test_a_tracker_that_fails_does_not_end_the_run_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fails, works = Notes("metrics", "close"), Notes()
    with tracked(tmp_path, fails, works) as trackers:
        for update in (1, 2, 3):
            trackers.metrics("update", update, {"a": 1.0})
        trackers.summary(3, {})
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("wandb did not take a record of the run: ConnectionError: no route to host.")
    assert [call[0] for call in works.got] == ["open", "metrics", "metrics", "metrics", "summary", "close"]
    assert [call[0] for call in fails.got] == ["open", "summary"]


def test_a_tracker_that_hangs_holds_up_neither_the_run_nor_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(courier, "CLOSE_S", 0.2)
    hung, works = threading.Event(), Notes()
    hangs = Notes()
    monkeypatch.setattr(hangs, "metrics", lambda *_: hung.wait(60))
    with tracked(tmp_path, hangs, works) as trackers:
        for update in (1, 2, 3):
            trackers.metrics("update", update, {"a": 1.0})
    hung.set()
    assert works.got[-1] == ("close", "finished")
    assert "wandb did not take the run's last records in 0.2 s" in caplog.text


def test_a_new_run_is_refused_when_a_tracker_cannot_be_opened_and_the_others_are_closed(tmp_path: Path) -> None:
    works = Notes()
    with pytest.raises(TrackerError, match="mlflow, which cannot be opened: ConnectionError"):
        tracked(tmp_path, works, Notes("open")).__enter__()
    assert works.got[-1] == ("close", "failed")


def test_a_run_is_resumed_without_a_tracker_that_is_away_which_gets_the_rest_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracked(tmp_path, Notes(), Notes()) as trackers:
        trackers.metrics("update", 1, {"a": 1.0})
    away = Notes("open")
    with tracked(tmp_path, away, Notes()) as trackers:
        assert "wandb did not take" in caplog.text
        trackers.metrics("update", 2, {"a": 2.0})
        away.failing.clear()
        trackers.metrics("update", 3, {"a": 3.0})
    assert away.got[0] == ("open", "the-id")
    assert ("metrics", 3, {"a": 3.0}) in away.got


@pytest.mark.parametrize(
    ("error", "ending"),
    [(None, "finished"), (RunStoppedError(), "stopped"), (asyncio.CancelledError(), "stopped"), (OSError(), "failed")],
)
def test_a_tracker_is_told_how_the_run_ended(error: BaseException | None, ending: Ending, tmp_path: Path) -> None:
    notes = Notes()
    with tracked(tmp_path, notes, Notes()) as trackers:
        trackers.__exit__(type(error) if error else None, error, None)
    assert notes.got[-1] == ("close", ending)


def test_a_resumed_run_sends_an_update_and_its_evaluation_and_grid_once_each(tmp_path: Path) -> None:
    first, second = Notes(), Notes()
    (tmp_path / "grids").mkdir()
    for notes, last in ((first, 2), (second, 3)):
        with tracked(tmp_path, notes, Notes()) as trackers:
            for update in range(1, last + 1):
                trackers.metrics("update", update, {})
                trackers.metrics("evaluation", update, {})
                (tmp_path / f"grids/update-{update:05d}.png").touch()
                trackers.grids(RunFolder(tmp_path).grids())
    assert [call[1] for call in first.got if call[0] == "metrics"] == [1, 1, 2, 2]
    assert [call[1] for call in first.got if call[0] == "grid"] == [1, 2]
    assert second.got == [
        ("open", "the-id"),
        ("metrics", 3, {}),
        ("metrics", 3, {}),
        ("grid", 3),
        ("close", "finished"),
    ]
    assert json.loads((tmp_path / "trackers/wandb.json").read_text())["run_id"] == "the-id"


def test_what_metrics_jsonl_gets_the_trackers_get_but_for_what_is_no_number(tmp_path: Path) -> None:
    notes = Notes()
    with tracked(tmp_path, notes, Notes()) as trackers:
        log = MetricsLog(tmp_path, trackers)
        log.write(4, {"a": 0.5, "b": float("nan")}, event="update", version="v")
        log.close()
    assert ("metrics", 4, {"a": 0.5}) in notes.got
