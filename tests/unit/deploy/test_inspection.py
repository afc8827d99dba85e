from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.looking.inspection import inspect_run, widest_groups
from rc_grpo.data import write_experience
from rc_grpo.data.log.experience import Level, ScoredCandidates
from tests.unit.deploy.report.folders import logged_group, write_run

LOGGED = "experience/update-00003.parquet"


def group_of(place: int, rewards: list[float]) -> ScoredCandidates:
    made = logged_group(3, place, 0.5, np.random.default_rng(place))
    return replace(made, scores=replace(made.scores, task_reward=np.array(rewards)))


def run_with(folder: Path, *groups: ScoredCandidates, level: Level = "images", overrides: tuple[str, ...] = ()) -> Path:
    write_run(folder, updates=3, heldout=None, logged=1, overrides=overrides)
    write_experience(folder / LOGGED, groups, level)
    return folder


def test_the_widest_groups_come_first_and_two_of_one_task_stay_two(tmp_path: Path) -> None:
    narrow, wide = group_of(0, [0.5, 0.5, 0.5, 0.6]), group_of(0, [0.1, 0.9, np.nan, 0.5])
    failed = group_of(1, [np.nan] * 4)
    folder = run_with(tmp_path / "run", narrow, failed, wide)
    rows, shown = widest_groups(folder, None, 2)
    assert shown == 3
    assert [row.title for row in rows] == [f"{wide.task.task_id}: {wide.task.instruction}"] * 2
    assert [label for _, label in rows[0].cells[-4:]] == ["0.900", "0.500", "0.100 (reference)", "failed"]
    np.testing.assert_array_equal(rows[0].cells[-4][0], wide.candidates.images[1])
    assert inspect_run(folder, 3, 9)[0].height > inspect_run(folder, 3, 1)[0].height


def test_what_cannot_be_shown_is_said(tmp_path: Path) -> None:
    group = group_of(0, [0.1, 0.2, 0.3, 0.4])
    with pytest.raises(ValueError, match=r"no experience of update 7; there are 3\.\.3"):
        widest_groups(run_with(tmp_path / "other", group), 7, 1)
    with pytest.raises(ValueError, match="logged at level `scores` and `images` is needed"):
        widest_groups(run_with(tmp_path / "scores", group, level="scores"), None, 1)
    with pytest.raises(ValueError, match="is no longer in the run's training data"):
        widest_groups(run_with(tmp_path / "fewer", group, overrides=("data.train.limit=2",)), None, 1)
