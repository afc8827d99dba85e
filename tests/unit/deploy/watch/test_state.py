"""The word on the badge is true: by the driver where it answers, else by the folder."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from deploy.records.curves import Curves
from deploy.records.folder import SUMMARY, RunFolder
from deploy.watch.state import pace_of, state_of
from deploy.watch.view import duration
from tests.unit.deploy.watch.watched import status

WHERE = {"address": "10.0.0.7:6379", "namespace": "rc-grpo-run", "auth": "disabled"}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def waiting(seconds: float) -> dict[str, Any]:
    return {"who": "the learner", "what": "the groups of update 3", "seconds": seconds, "deadline_s": 3600.0}


@pytest.mark.parametrize(
    ("seconds", "update", "word"),
    [
        (3.0, math.nan, "running"),
        (61.0, math.nan, "waiting"),
        (61.0, 20.0, "waiting"),
        (61.0, 300.0, "running"),
        (599.0, 300.0, "running"),
        (601.0, 300.0, "waiting"),
    ],
)
def test_a_wait_is_one_when_it_is_longer_than_the_pools_take_turns(
    folder: RunFolder, seconds: float, update: float, word: str
) -> None:
    state = state_of(folder, status(folder.path, waits=[waiting(1.0), waiting(seconds)]), "", update)
    assert state.word == word
    assert ("the learner waits for the groups of update 3" in state.said) == (word == "waiting")
    assert state.takes_orders


def test_a_run_that_stops_says_so_whatever_it_waits_for(folder: RunFolder) -> None:
    state = state_of(folder, status(folder.path, waits=[waiting(900.0)], stopping=True), "", math.nan)
    assert state.word == "stopping"


def test_without_a_driver_the_folder_says_where_the_run_is(folder: RunFolder) -> None:
    assert state_of(folder, None, "nobody", math.nan).word == "not running"
    folder.announce(WHERE)
    assert state_of(folder, None, "", math.nan).word == "asking"
    gone = state_of(folder, None, "no Ray cluster answers at 10.0.0.7:6379", math.nan)
    assert (gone.word, gone.said) == ("not reachable", "no Ray cluster answers at 10.0.0.7:6379")
    assert not gone.takes_orders
    (folder.path / SUMMARY).write_text(json.dumps({"updates": 7, "training_minutes": 1.0}))
    over = state_of(folder, None, "no Ray cluster answers", math.nan)
    assert over.word == "finished"
    assert "7 updates" in over.said


def test_a_finished_run_that_goes_on_is_what_its_driver_says(folder: RunFolder) -> None:
    (folder.path / SUMMARY).write_text(json.dumps({"updates": 7, "training_minutes": 1.0}))
    assert state_of(folder, status(folder.path), "", math.nan).word == "running"


def test_the_time_left_is_the_planned_updates_at_the_pace_of_the_last() -> None:
    curves = Curves()
    for update in range(1, 31):
        slow = 1000.0 if update <= 10 else 10.0
        curves.add(
            {"update": update, "event": "update", "seconds/update_total": slow, "reward/task_mean": update / 100}
        )
    curves.add({"update": 0, "event": "evaluation", "heldout/reward": 0.25})
    curves.add({"update": 30, "event": "evaluation", "heldout/reward": 0.5})
    pace = pace_of(curves, planned=40)
    assert (pace.done, pace.seconds, pace.left) == (30, 10.0, 100.0)
    assert pace.minutes == pytest.approx((10 * 1000 + 20 * 10) / 60)
    assert (pace.reward, pace.heldout) == ((0.01, 0.3), (0.25, 0.5))
    assert math.isnan(pace_of(Curves(), planned=40).left)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (math.nan, "–"),
        (0.0, "0.0 s"),
        (9.96, "10.0 s"),
        (59.6, "60 s"),
        (90.0, "1 min 30 s"),
        (214.4, "3 min 34 s"),
        (540.0, "9 min"),
        (600.0, "10 min"),
        (3599.0, "1 h"),
        (3900.0, "1 h 05 min"),
        (86_400.0, "1 d"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_times_are_said_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said
