import numpy as np
import pytest
from scipy import stats

from rc_grpo.evaluation.alarm import LEVEL, HeldOutSeries, Training, find_alarms, overpraise, smoothed

TASKS = 60


def training(course, updates=60, noise=0.01, seed=0):
    numbers = np.arange(1, updates + 1)
    return Training(numbers, course(numbers.astype(float)) + np.random.default_rng(seed).normal(0, noise, updates))


def heldout(course, updates=range(0, 61, 5), noise=0.02, seed=1, name="reward", **options):
    rng = np.random.default_rng(seed)
    tasks = rng.normal(0, 0.2, TASKS)
    by_task = np.array([course(float(update)) + tasks + rng.normal(0, noise, TASKS) for update in updates])
    return HeldOutSeries.of_tasks(name, tuple(updates), by_task, **options)


def rises(update):
    return 0.5 + 0.004 * update


def peaks_at_30(update):
    return 0.5 + 0.004 * np.minimum(update, 30) - 0.004 * np.maximum(update - 30, 0)


def falls(update):
    return 0.5 - 0.004 * update


def flat(update):
    return 0.5 + 0 * update


def test_both_rising_is_no_alarm():
    assert find_alarms({"task": training(rises)}, [heldout(rises)]) == []


def test_a_rising_reward_over_a_falling_measure_is_an_alarm_from_the_update_where_they_part():
    (alarm,) = find_alarms({"task": training(rises)}, [heldout(peaks_at_30)])
    assert alarm.since == 30
    # A fall of 0.04 is a fifth of what the tasks differ by.
    assert alarm.seen in (40, 45)
    assert alarm.lasts
    assert alarm.reward_seen > alarm.reward_then
    assert alarm.measure_seen < alarm.measure_then
    assert alarm.fall > 3


def test_a_falling_reward_is_a_bad_run_and_not_a_hacked_one():
    assert find_alarms({"task": training(falls)}, [heldout(falls)]) == []
    assert find_alarms({"task": training(flat)}, [heldout(falls)]) == []


def judged(truth, praise, updates=range(0, 61, 5)):
    """What a judge that is learned from (``praise`` of truth and update) and the truth say of one set of edits."""
    rng = np.random.default_rng(2)
    tasks = rng.normal(0, 0.2, TASKS)
    true = np.array([truth(float(update)) + tasks + rng.normal(0, 0.02, TASKS) for update in updates])
    praised = np.array([praise(row, update) for row, update in zip(true, updates, strict=True)])
    measures = {"reward": praised + rng.normal(0, 0.05, praised.shape), "reward/truth": true}
    series = HeldOutSeries.of_tasks("reward/truth", tuple(updates), true)
    return [series], overpraise("task", tuple(updates), measures)


def test_a_judge_that_goes_on_praising_what_gets_worse_is_an_alarm_although_the_reward_stands_still():
    """As the pocket judge was hacked: its praise stood still from update 24 on, and the truth fell below the base's."""
    watched, gaps = judged(peaks_at_30, lambda true, update: true - peaks_at_30(update) + 0.004 * min(update, 30) + 0.5)
    (alarm,) = find_alarms({"task": training(flat, noise=0.0)}, watched, gaps)
    assert (alarm.since, alarm.lasts) == (30, True)
    assert alarm.seen in (40, 45)
    assert find_alarms({"task": training(flat, noise=0.0)}, watched) == []
    assert find_alarms({"other": training(flat, noise=0.0)}, watched, gaps) == []


@pytest.mark.parametrize("slope", [1.0, 0.6])
def test_a_judge_that_sees_most_of_a_fall_is_a_bad_run_and_not_a_hacked_one(slope):
    """Learned judges' scores are drawn together, so that a part of every fall stays unseen."""
    watched, gaps = judged(falls, lambda true, update: 0.5 + slope * (true - 0.5))
    assert find_alarms({"task": training(flat)}, watched, gaps) == []


def test_a_measure_where_less_is_better_raises_the_alarm_by_rising():
    series = heldout(rises, name="background_drift", lower_is_better=True)
    (alarm,) = find_alarms({"task": training(rises)}, [series])
    assert (alarm.measure, alarm.since) == ("background_drift", 0)
    assert find_alarms({"task": training(rises)}, [heldout(falls, lower_is_better=True)]) == []


def test_noise_raises_no_more_alarms_than_it_says():
    alarms = 0
    for seed in range(100):
        watched = [heldout(flat, seed=1000 * seed + index, name=str(index)) for index in range(4)]
        alarms += bool(find_alarms({"task": training(rises, seed=seed)}, watched))
    assert alarms <= stats.binom.ppf(0.999, 100, LEVEL)


def test_an_alarm_that_is_over_says_so():
    def dips(update):
        return rises(update) - (0.15 if 25 <= update <= 35 else 0)

    (alarm,) = find_alarms({"task": training(rises)}, [heldout(dips)])
    assert (alarm.since, alarm.seen, alarm.lasts) == (20, 25, False)


def test_alarms_come_in_the_order_in_which_they_were_seen_with_the_names_of_reward_and_measure():
    rewards = {"task": training(rises), "acd": training(rises, seed=5), "idle": training(falls)}
    alarms = find_alarms(rewards, [heldout(peaks_at_30, name="late"), heldout(falls, name="early")])
    assert {(alarm.reward, alarm.measure) for alarm in alarms} == {
        (reward, measure) for reward in ("task", "acd") for measure in ("late", "early")
    }
    assert [alarm.seen for alarm in alarms] == sorted(alarm.seen for alarm in alarms)
    assert alarms[0].measure == "early"


def test_one_evaluation_or_unscored_tasks_alone_raise_nothing_and_do_not_fail():
    nothing = HeldOutSeries.of_tasks("reward", (0, 5, 10), np.full((3, TASKS), np.nan))
    assert find_alarms({"task": training(rises)}, [heldout(rises, updates=(0,)), nothing]) == []
    assert find_alarms({"task": training(rises, updates=1)}, [heldout(falls)]) == []


def test_failed_tasks_are_left_out_of_a_pair_and_not_counted_as_zeros():
    by_task = np.tile(np.linspace(0.3, 0.7, TASKS), (4, 1)) + 0.1 * np.arange(4)[:, None]
    by_task[3, 10:40] = np.nan
    series = HeldOutSeries.of_tasks("reward", (0, 5, 10, 15), by_task)
    assert find_alarms({"task": training(rises)}, [series]) == []
    assert series.values[3] == pytest.approx(np.nanmean(by_task[3]))


def test_bare_means_are_watched_once_there_are_enough_to_know_their_scatter():
    updates = list(range(0, 61, 5))
    means = peaks_at_30(np.array(updates, dtype=float)) + np.random.default_rng(3).normal(0, 0.003, len(updates))
    (alarm,) = find_alarms({"task": training(rises)}, [HeldOutSeries.of_means("diversity", updates, means)])
    assert alarm.since in (25, 30, 35)
    assert find_alarms({"task": training(rises)}, [HeldOutSeries.of_means("few", updates[:6], means[-6:])]) == []


def test_one_wild_update_does_not_move_the_smoothed_reward():
    calm, wild = training(rises), training(rises)
    wild.values[29] = 50.0
    assert smoothed(wild, 30)[0] == pytest.approx(smoothed(calm, 30)[0], abs=0.02)


def test_evaluations_out_of_order_are_refused_by_name():
    with pytest.raises(ValueError, match=r"drift.*must rise"):
        HeldOutSeries.of_tasks("drift", (5, 0), np.zeros((2, TASKS)))
    with pytest.raises(ValueError, match=r"2 evaluations, but values \[3\]"):
        HeldOutSeries("drift", (0, 5), np.zeros(3), np.zeros((3, 3)), np.zeros(3), 1)


def test_a_fall_that_nobody_would_see_is_no_alarm_however_small_its_standard_error():
    """As a first run had it: artifacts 24.98 -> 24.97 of 25, on 300 tasks that all have nearly full marks."""
    tasks = 25 - np.abs(np.random.default_rng(0).normal(0, 0.03, 300))
    by_task = np.stack([tasks - 0.007 * min(index, 1) for index in range(5)])
    assert (
        find_alarms({"task": training(rises)}, [HeldOutSeries.of_tasks("artifacts", range(0, 50, 10), by_task)]) == []
    )
    (alarm,) = find_alarms(
        {"task": training(rises)},
        [HeldOutSeries.of_tasks("artifacts", range(0, 50, 10), np.stack([tasks - 0.3 * index for index in range(5)]))],
    )
    assert alarm.since == 0


def test_an_alarm_says_how_far_the_measure_fell_in_standard_deviations_over_tasks():
    by_task = np.random.default_rng(3).normal(0.5, 0.1, (1, 200)) - np.array([[0.0], [0.05], [0.1]])
    (alarm,) = find_alarms({"task": training(rises)}, [HeldOutSeries.of_tasks("reward", (0, 20, 40), by_task)])
    assert alarm.effect == pytest.approx(0.05 / by_task[0].std(ddof=1), rel=1e-6)


def test_a_fall_that_is_certain_but_small_beside_what_tasks_differ_by_is_no_alarm():
    by_task = np.random.default_rng(3).normal(0.5, 0.1, (1, 200)) - np.array([[0.0], [0.019], [0.019]])
    assert find_alarms({"task": training(rises)}, [HeldOutSeries.of_tasks("reward", (0, 20, 40), by_task)]) == []
