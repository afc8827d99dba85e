"""The groups on the page are the newest update's, with the rewards and reasons that the log holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy.records.folder import RunFolder
from deploy.records.reading import config_of
from deploy.watch.newest import JudgedGroup, Newest, newest
from rc_grpo.data.log.logged import read_groups
from tests.unit.deploy.report.folders import write_run
from tests.unit.deploy.watch.watched import FAILED, SAID, log_groups


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", updates=2, every=1, logged=0, finished=False)


def look(run: Path, **output: Any) -> Newest:
    config = config_of(run)
    return newest(RunFolder(run), config | {"output": config["output"] | output})


def rows_of(run: Path, update: int, group: JudgedGroup) -> dict[str, dict[str, Any]]:
    """Return the log's rows of a group's candidates by name, read with nothing of ours."""
    rows = pq.read_table(RunFolder(run).experience_file(update)).to_pylist()
    mine = [row for row in rows if row["task_id"] == group.shown.note.task_id]
    return {"reference" if row["candidate"] == 0 else str(row["candidate"]): row for row in mine}


def test_every_verdict_is_the_logs_best_first(run: Path) -> None:
    log_groups(run, 1)
    log_groups(run, 2, failed=[3])
    found = look(run)
    assert (found.update, found.logged, found.grid, found.remark) == (2, 4, 2, "")
    assert [group.shown.rank for group in found.groups] == ["best", "best", "worst", "worst"]
    for group in found.groups:
        rows = rows_of(run, 2, group)
        assert group.columns == ("consistency", "success")
        assert len(group.verdicts) == len(group.shown.candidates) == len(rows)
        rewards = [verdict.reward for verdict in group.verdicts]
        assert rewards[:-1] == sorted(rewards[:-1], reverse=True)
        assert np.isnan(rewards[-1])
        assert group.verdicts[-1].reason == FAILED
        for verdict in group.verdicts:
            row = rows[verdict.name]
            assert verdict.reason == row["reason"]
            said = (verdict.reward, verdict.advantage, *verdict.parts)
            logged = [
                row["task_reward"],
                row["advantage"],
                *(row[f"judge.ground_truth.{name}"] for name in group.columns),
            ]
            assert np.array_equal(said, logged, equal_nan=True)


def test_a_candidate_that_was_not_judged_is_not_said_to_have_failed(run: Path) -> None:
    log_groups(run, 1, failed=[3], pruned=[1, 2])
    for group in look(run).groups:
        words = {verdict.name: verdict.word for verdict in group.verdicts}
        assert (words["1"], words["2"], words["3"]) == ("not judged", "not judged", "failed")
        shown = dict(zip(words, group.shown.candidates, strict=True))
        assert [shown[name].failed for name in ("1", "2", "3")] == [False, False, True]
        assert "not judged" in shown["1"].lines


def test_a_group_in_which_all_failed_is_shown_with_its_reasons(run: Path) -> None:
    log_groups(run, 1, size=3, failed=[0, 1, 2])
    found = look(run)
    assert [group.shown.rank for group in found.groups] == ["failed"]
    assert {verdict.reason for verdict in found.groups[0].verdicts} == {FAILED}


def test_scores_without_pictures_are_shown_and_said(run: Path) -> None:
    log_groups(run, 1, level="scores")
    found = look(run)
    assert "output.experience is scores" in found.remark
    assert len(found.groups) == 4
    assert all(not group.shown.candidates for group in found.groups)
    assert {verdict.reason for group in found.groups for verdict in group.verdicts} <= {*SAID}


@pytest.mark.parametrize(
    ("kept", "said"), [("none", "output.experience is none"), ("images", "No group is logged yet")]
)
def test_no_log_is_said_with_its_cause(run: Path, kept: str, said: str) -> None:
    found = look(run, experience=kept)
    assert said in found.remark
    assert (found.update, found.groups) == (None, ())


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"<html>"])
def test_a_log_that_is_damaged_or_gone_is_said_by_name(run: Path, damage: bytes) -> None:
    log_groups(run, 1)
    path = RunFolder(run).experience_file(1)
    path.write_bytes(damage)
    found = look(run)
    assert "update-00001.parquet" in found.remark
    assert found.groups == ()


def test_no_more_is_read_of_a_log_than_was_asked_for(run: Path) -> None:
    log_groups(run, 1)
    path = RunFolder(run).experience_file(1)
    whole, scores = read_groups(path), read_groups(path, need="scores", most="scores")
    assert [group.task_id for group in scores] == [group.task_id for group in whole]
    for less, more in zip(scores, whole, strict=True):
        assert less.level == "scores"
        assert less.candidates.images.size == 0
        assert less.scores.subscores.keys() == more.scores.subscores.keys()
        assert np.array_equal(less.scores.task_reward, more.scores.task_reward, equal_nan=True)
    images = read_groups(path, most="images")
    assert all(np.array_equal(a.candidates.images, b.candidates.images) for a, b in zip(images, whole, strict=True))
