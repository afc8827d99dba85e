from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from deploy.records.metrics import METRICS
from deploy.records.reading import read_run, read_runs
from deploy.report.arms import arms_of, differences, flat, from_packaged
from deploy.report.curves import curve_of
from deploy.report.distributions import notes_of
from deploy.report.groups import chosen, gallery
from deploy.report.heldout import changes, watch
from deploy.report.page import write_report

from .folders import GROUPS, HELDOUT_TASKS, G, write_run


def test_what_is_no_run_is_refused_with_its_name_and_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder .*nowhere; name a run's"):
        read_runs([tmp_path / "nowhere"])
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"other has no config.yaml.*rc-grpo train"):
        read_runs([tmp_path / "other"])
    new = write_run(tmp_path / "new", updates=1, heldout=None)
    (new / METRICS).unlink()
    with pytest.raises(ValueError, match="new has no updates yet"):
        read_runs([new])
    with pytest.raises(ValueError, match="at least one"):
        read_runs([])
    run = write_run(tmp_path / "run", updates=2)
    with pytest.raises(ValueError, match="run was named twice"):
        read_runs([run, run / ".." / "run"])
    with pytest.raises(ValueError, match=r"is a folder; name the file.*report\.html"):
        write_report([run], tmp_path)


def test_a_running_run_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", updates=4, finished=False)
    with (folder / METRICS).open("a") as file:
        file.write('{"update": 5, "event": "update", "reward/ta')
    run = read_run(folder, "run")
    assert run.updates.tolist() == [1, 2, 3, 4]
    assert run.summary is None
    assert run.minutes == pytest.approx(16 / 60, rel=0.01)
    (folder / METRICS).write_text("what?\n")
    with pytest.raises(ValueError, match=r"metrics.jsonl holds a line that is no JSON"):
        read_run(folder, "run")


def test_evaluations_are_aligned_by_task_and_measure(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"), "run")
    assert run.evaluations.updates == (0, 6, 12, 18, 24)
    assert set(run.evaluations.measures) == {"reward", "background_drift", "ground_truth/success"}
    assert run.evaluations.measures["reward"].shape == (5, HELDOUT_TASKS)
    assert "heldout/reward/ground_truth" not in run.heldout


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / place / "run", updates=1) for place in ("here", "there")]
    assert [run.name for run in read_runs(folders)] == ["here/run", "there/run"]


def test_runs_that_differ_in_the_seed_alone_are_one_arm(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"rdp-{seed}", seed=seed, updates=2) for seed in (1, 2)]
    folders += [write_run(tmp_path / "global", overrides=("rollout.exploration=global",), updates=2)]
    runs = read_runs(folders)
    arms = arms_of(runs)
    assert [(arm.label, len(arm.runs)) for arm in arms] == [("rdp-* (2 seeds)", 2), ("global", 1)]
    assert {row.key: row.values for row in differences(runs)} == {
        "seed": ("1", "2", "0"),
        "rollout.exploration": ("rdp", "rdp", "global"),
    }


def test_a_run_alone_is_compared_with_the_packaged_config_it_came_from(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", updates=2, overrides=("rollout.group_size=5",)), "run")
    name, changed = from_packaged(run)
    assert name == "pocket"
    assert {row.key: row.values[1] for row in changed} == {
        "seed": "0",
        "rollout.group_size": "5",
        "loop.updates": "2",
    }


def test_a_configuration_is_flat_with_dots_and_keeps_lists_and_empty_mappings() -> None:
    assert flat({"a": {"b": [1, 2], "c": {}}, "d": None}) == {"a.b": [1, 2], "a.c": {}, "d": None}


def test_a_band_is_students_interval_over_the_updates_that_all_seeds_have(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"r{seed}", seed=seed, updates=4) for seed in range(3)]
    behind = folders[2] / METRICS
    lines = behind.read_text().splitlines(keepends=True)
    behind.write_text("".join(line for line in lines if '"update": 4' not in line))
    (arm,) = arms_of(read_runs(folders))
    curve = curve_of(arm, "reward/task_mean")
    values = np.array([run.metrics["reward/task_mean"][:3] for run in arm.runs])
    low, high = stats.t.interval(0.95, 2, values.mean(axis=0), stats.sem(values, axis=0))
    assert curve is not None
    assert curve.half_width is not None
    assert curve.updates.tolist() == [1, 2, 3]
    assert np.allclose(curve.mean - curve.half_width, low)
    assert np.allclose(curve.mean + curve.half_width, high)
    assert curve_of(arm, "no/such") is None


def test_a_difference_is_paired_and_its_error_is_over_tasks_or_over_seeds(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / f"r{seed}", seed=seed) for seed in range(3)])
    alone = changes(arms_of(runs[:1]))["reward"][0]
    values = runs[0].evaluations.measures["reward"]
    assert alone.error == pytest.approx(stats.sem(values[-1] - values[0]))
    assert alone.difference == pytest.approx(0.004 * 24, abs=0.01)
    assert (alone.verdict, alone.tasks) == ("better", HELDOUT_TASKS)
    together = changes(arms_of(runs))["reward"][0]
    ends = [run.evaluations.measures["reward"][[0, -1]].mean(axis=1) for run in runs]
    assert together.error == pytest.approx(stats.sem([after - before for before, after in ends]))
    assert together.tasks == 3 * HELDOUT_TASKS


def test_a_hacked_run_raises_the_alarm_and_an_honest_one_does_not(tmp_path: Path) -> None:
    honest = read_run(write_run(tmp_path / "honest", updates=48), "honest")
    assert watch(honest) == []
    hacked = write_run(tmp_path / "hacked", updates=48, heldout=lambda update: 0.6 - 0.004 * abs(update - 24))
    alarms = watch(read_run(hacked, "hacked"))
    assert {(alarm.measure, alarm.since) for alarm in alarms} == {("reward", 24), ("ground_truth/success", 24)}


def test_best_and_worst_groups_are_of_the_last_updates_and_no_group_is_both(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", updates=14, logged=12), "run")
    notes = notes_of(run)
    assert len(notes) == 12 * GROUPS
    picked = chosen(notes, 3)
    assert [rank for rank, _ in picked] == ["best"] * 3 + ["worst"] * 3
    assert min(note.update for _, note in picked) >= 5
    assert picked[0][1].reward == max(note.reward for note in notes if note.update > 4)
    few = chosen(notes[-2:], 3)
    assert [rank for rank, _ in few] == ["best", "best"]


def test_a_group_is_shown_with_what_was_asked_its_candidates_by_reward_and_their_attention(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", updates=2), "run")
    shown = gallery(run, notes_of(run), 1)
    assert shown.remark == ""
    group = shown.groups[0]
    assert [cell.lines[0] for cell in group.given] == ["source", "mask", "target"]
    rewards = [float(cell.lines[0].removeprefix("reward ")) for cell in group.candidates]
    assert rewards == sorted(rewards, reverse=True)
    assert len(rewards) == G
    assert all(cell.heat is not None and cell.alt for cell in group.candidates)
    assert sum("reference" in cell.lines for cell in group.candidates) == 1


def test_groups_without_images_or_without_their_data_set_say_what_is_missing(tmp_path: Path) -> None:
    scores = read_run(write_run(tmp_path / "scores", updates=2, level="scores"), "scores")
    assert "set output.experience: images" in gallery(scores, notes_of(scores), 1).remark
    unlogged = read_run(write_run(tmp_path / "none", updates=2, logged=0), "none")
    assert "no scored group" in gallery(unlogged, notes_of(unlogged), 1).remark
    moved = read_run(write_run(tmp_path / "moved", updates=2), "moved")
    moved.config["data"]["train"] |= {"format": "jsonl", "path": str(tmp_path / "gone.jsonl"), "split": None}
    moved.config["data"]["train"].pop("split")
    shown = gallery(moved, notes_of(moved), 1)
    assert "gone.jsonl" in shown.remark
    assert shown.groups[0].given == ()
    assert len(shown.groups[0].candidates) == G
