"""A run that goes wrong ends, and says why; one that goes well does not."""

from pathlib import Path

import numpy as np
import pytest

from deploy.batches.lessons import Lessons
from deploy.configs import load_config
from deploy.run.guards import Guards
from deploy.stopping import GuardError, RunawayError
from rc_grpo.config import GuardConfig, ObjectiveConfig
from rc_grpo.evaluation.gains import HeldOut
from rc_grpo.messages import GroupScores, PolicyVersion
from tests.unit.deploy.report.folders import rising, write_run

SCORED = HeldOut(PolicyVersion(1, "d", 1, is_identity=False), np.array([0.5, np.nan]), np.zeros(2), {})
BY_REWARD = load_config("pocket")
WATCHED = ("reward.judges.watcher={kind: ground_truth, weight: 0}", "evaluation.measured_by=watcher")
FAILED, TIED = "too_few_valid", "tied_task_rewards"


def lessons() -> Lessons:
    return Lessons({"editscore": 1.0}, ObjectiveConfig(acd_weight=0.0))


def guards(folder: Path = Path(), counted: Lessons | None = None, **changes: object) -> Guards:
    return Guards(BY_REWARD.model_copy(update={"guards": GuardConfig(**changes)}), counted or lessons(), folder)  # type: ignore[arg-type]


def scores(*rewards: float, reason: str | None = None) -> GroupScores:
    values = np.array(rewards)
    reasons = tuple(reason if np.isnan(value) else "fine" for value in values)
    return GroupScores("t", "editscore", values, np.zeros(len(values)), reasons=reasons)


def test_updates_without_a_group_learned_from_end_the_run_with_how_many_failed_or_tied_and_the_judges_last_word() -> (
    None
):
    counted = lessons()
    looking = guards(counted=counted, barren_updates=2)
    for _ in range(2):
        counted.learn(scores(np.nan, np.nan, 0.3, 0.4, reason="400: At most 1 image(s) may be provided"))
        counted.learn(scores(0.5, 0.5, 0.5, 0.5))
        counted.learn(scores(np.nan, 0.5, 0.5, np.nan, reason="401: no such key"))
    looking.after_update(1, [FAILED, TIED, FAILED], {})
    with pytest.raises(GuardError) as ended:
        looking.after_update(2, [FAILED, TIED, FAILED], {})
    assert "in the 2 updates up to 2" in str(ended.value)
    assert "of 6 groups 4 with too few scores, 2 scored alike" in str(ended.value)
    assert "editscore: 401: no such key" in str(ended.value)
    assert "guards.barren_updates" in str(ended.value)
    assert not isinstance(ended.value, RunawayError)


def test_one_group_learned_from_begins_the_count_anew() -> None:
    counted = lessons()
    looking = guards(counted=counted, barren_updates=2)
    for done in range(1, 21):
        counted.learn(scores(0.5, 0.5, 0.5))
        looking.after_update(done, [TIED, None if done % 2 else TIED], {})
    assert counted.groups.total() == 1


@pytest.mark.parametrize("barren", [0, 100])
def test_a_guard_that_is_off_or_far_away_ends_nothing(barren: int) -> None:
    looking = guards(barren_updates=barren, log_ratio=None, kl=None)
    for done in range(1, 20):
        looking.after_update(done, [TIED], {"update/later_steps/kl": 1e9, "update/first_step/max_abs_log_ratio": 1e9})


@pytest.mark.parametrize(
    ("name", "value", "guard"),
    [
        ("update/first_step/max_abs_log_ratio", 10.5, "log_ratio"),
        ("update/later_steps/max_abs_log_ratio", np.inf, "log_ratio"),
        ("update/later_steps/kl", 5.5, "kl"),
        ("update/first_step/kl", -5.5, "kl"),
        ("update/later_steps/kl", np.nan, "kl"),
    ],
)
def test_a_policy_that_runs_away_ends_the_run_with_the_figure_and_its_bound(
    name: str, value: float, guard: str
) -> None:
    with pytest.raises(RunawayError, match=rf"{name} is .* in update 7, beyond guards\.{guard} = "):
        guards().after_update(7, [None], {name: value})
    fine = {name: 0.9, "reward/kl": 99.0, "update/later_steps/recomputed_max_abs_log_ratio": 99.0}
    guards().after_update(7, [None], fine)


def test_a_run_in_which_nothing_was_ever_learned_does_not_end_well(tmp_path: Path) -> None:
    barren = write_run(tmp_path / "barren", updates=2, heldout=None)
    log = barren / "metrics.jsonl"
    log.write_text(log.read_text().replace('"groups_skipped/share": 0.0', '"groups_skipped/share": 1.0'))
    with pytest.raises(GuardError, match="nothing could be learned in the whole run"):
        guards(barren).at_the_end()
    guards(barren, barren_updates=0).at_the_end()
    log.write_text(log.read_text().replace('"groups_skipped/share": 1.0', '"groups_skipped/share": 0.9', 1))
    guards(barren).at_the_end()


def test_held_out_reward_that_falls_while_the_training_reward_rises_ends_the_run(tmp_path: Path) -> None:
    hacked = write_run(tmp_path / "hacked", heldout=lambda update: 0.6 - 0.01 * max(0, update - 6))
    with pytest.raises(
        GuardError, match=r"held-out reward fell from 0\.\d+ after update \d .* lora-best/ has the trained"
    ):
        guards(hacked).after_evaluation(SCORED, range(24, 40))
    guards(hacked, falling_evaluations=0).after_evaluation(SCORED, range(24, 40))
    guards(hacked, falling_evaluations=4).after_evaluation(SCORED, range(24, 40))
    guards(hacked).after_evaluation(SCORED, range(0))


def test_a_judge_that_looks_on_sees_a_run_hacked_that_its_own_judge_praises(tmp_path: Path) -> None:
    hacked = write_run(tmp_path / "hacked", watched=lambda update: 0.6 - 0.01 * max(0, update - 6))
    guards(hacked).after_evaluation(SCORED, range(24, 40))
    with pytest.raises(GuardError, match=r"held-out reward by watcher fell from 0\.\d+ after update \d "):
        Guards(load_config("pocket", WATCHED), lessons(), hacked).after_evaluation(SCORED, range(24, 40))


def test_a_reward_that_stands_still_over_edits_that_get_worse_ends_the_run_too(tmp_path: Path) -> None:
    level = {"reward": lambda update: 0.5, "heldout": lambda update: 0.6}
    hacked = write_run(tmp_path / "hacked", watched=lambda update: 0.6 - 0.02 * max(0, update - 6), **level)  # type: ignore[arg-type]
    bad = write_run(
        tmp_path / "bad", reward=level["reward"], heldout=(both := lambda update: 0.6 - 0.02 * update), watched=both
    )
    with pytest.raises(GuardError, match=r"held-out reward by watcher fell .* the training reward went from"):
        Guards(load_config("pocket", WATCHED), lessons(), hacked).after_evaluation(SCORED, range(24, 40))
    Guards(load_config("pocket", WATCHED), lessons(), bad).after_evaluation(SCORED, range(24, 40))


@pytest.mark.parametrize("course", [rising, lambda update: 0.5])
def test_held_out_reward_that_rises_or_only_scatters_ends_nothing(tmp_path: Path, course: object) -> None:
    guards(write_run(tmp_path / "fine", heldout=course)).after_evaluation(SCORED, range(24, 40))  # type: ignore[arg-type]


def test_one_fall_that_the_next_evaluation_takes_back_ends_nothing(tmp_path: Path) -> None:
    dip = write_run(tmp_path / "dip", heldout=lambda update: 0.4 if update == 18 else 0.6)
    guards(dip).after_evaluation(SCORED, range(24, 40))


def test_held_out_tasks_of_which_none_can_be_scored_end_the_run_before_its_first_update(tmp_path: Path) -> None:
    failed = HeldOut(SCORED.version, np.array([np.nan, np.nan]), np.zeros(2), {}, last_failure="400: no such model")
    with pytest.raises(GuardError, match=r"not one of 2 held-out tasks could be scored.*400: no such model"):
        guards(tmp_path).after_evaluation(failed, range(40))
    guards(tmp_path, barren_updates=0).after_evaluation(failed, range(40))
