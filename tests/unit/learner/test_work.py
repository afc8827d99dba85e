import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.work import GroupWork, RunShape, batch_advantages, draw_anchors, draw_steps, idle_share, spread
from rc_grpo.config import ObjectiveConfig
from rc_grpo.messages import Explored, GroupScores, PolicyVersion, RolloutSeeds

VERSION = PolicyVersion(0, "d", 1, is_identity=True)
RUN = RunShape(seed=7, method="euler", steps=8, updates=10, max_staleness=0, judge_weights={"j": 1.0})


def scores(rewards: list[float]) -> GroupScores:
    return GroupScores("t", "j", np.array(rewards), np.linspace(1.0, 2.0, len(rewards)))


def test_skipped_groups_say_why_and_failed_candidates_have_no_advantage() -> None:
    batch = [scores([0.1, 0.5, 0.9, np.nan]), scores([0.3] * 4), scores([np.nan, np.nan, 0.1, 0.2])]
    advantages, skipped = batch_advantages(batch, RUN.judge_weights, ObjectiveConfig())
    assert skipped == (None, "tied_task_rewards", "too_few_valid")
    assert np.isnan(advantages[0, 3])
    assert advantages[0, :3].mean() == pytest.approx(0.0, abs=1e-9)
    assert not advantages[1:].any()


def test_anchors_are_a_function_of_seed_version_and_task_and_never_the_reference() -> None:
    drawn = draw_anchors(RUN, 3, "task", 12, 4)
    assert drawn == draw_anchors(RUN, 3, "task", 12, 4)
    assert len(set(drawn)) == 4
    assert 0 not in drawn
    assert len({draw_anchors(RUN, version, "task", 12, 4) for version in range(10)}) > 5


def test_trained_steps_are_all_or_a_draw_in_order() -> None:
    assert draw_steps(RUN, 0, "task", None) == tuple(range(8))
    drawn = draw_steps(RUN, 0, "task", 3)
    assert len(set(drawn)) == 3
    assert list(drawn) == sorted(drawn)
    assert set(drawn) <= set(range(8))


MINIBATCH = [scores([0.1, 0.5, 0.9, 0.4]), scores([0.7, 0.2, 0.3, 0.35])]


def by_hand(task: np.ndarray, acd: np.ndarray, acd_weight: float) -> np.ndarray:
    """Advantages of a minibatch ``[P, G]`` without failures, unclipped: algorithm.md, section 6."""
    rewards = (task - task.mean()) / task.std() + acd_weight * (acd - acd.mean()) / acd.std()
    return (rewards - rewards.mean(axis=1, keepdims=True)) / (rewards.std(axis=1, keepdims=True) + 1e-4)


@pytest.mark.parametrize("acd_weight", [0.0, 0.5, 2.0])
def test_the_attention_reward_counts_by_its_weight(acd_weight: float) -> None:
    advantages, skipped = batch_advantages(MINIBATCH, RUN.judge_weights, ObjectiveConfig(acd_weight=acd_weight))
    task, acd = (np.stack([getattr(group, name) for group in MINIBATCH]) for name in ("task_reward", "acd_reward"))
    assert skipped == (None, None)
    np.testing.assert_allclose(advantages.numpy(), by_hand(task, acd, acd_weight), rtol=1e-9)


def test_advantages_are_clipped_where_the_configuration_says() -> None:
    config = ObjectiveConfig(acd_weight=0.0, advantage_clip=0.75)
    advantages, _ = batch_advantages(MINIBATCH, RUN.judge_weights, config)
    task = np.stack([group.task_reward for group in MINIBATCH])
    np.testing.assert_allclose(advantages.numpy(), by_hand(task, task, 0.0).clip(-0.75, 0.75), rtol=1e-9)


@pytest.mark.parametrize(("min_valid", "reason"), [(2, None), (3, "too_few_valid")])
def test_a_group_needs_as_many_scores_as_the_configuration_says(min_valid: int, reason: str | None) -> None:
    batch = [scores([0.1, 0.9, np.nan, np.nan]), MINIBATCH[1]]
    _, skipped = batch_advantages(batch, RUN.judge_weights, ObjectiveConfig(min_valid=min_valid))
    assert skipped == (reason, None)


@pytest.mark.parametrize(("min_std", "reason"), [(0.5, None), (1.5, "no_spread")])
def test_a_groups_rewards_need_the_spread_that_the_configuration_says(min_std: float, reason: str | None) -> None:
    _, skipped = batch_advantages(MINIBATCH[:1], RUN.judge_weights, ObjectiveConfig(acd_weight=0.0, min_std=min_std))
    assert skipped == (reason,)


def test_the_denominators_norm_is_the_configurations() -> None:
    config = ObjectiveConfig(acd_weight=0.0, quasi_norm_p=1.0)
    advantages, _ = batch_advantages(MINIBATCH[:1], RUN.judge_weights, config)
    task = MINIBATCH[0].task_reward
    deviation = (task - task.mean()) / task.std()
    np.testing.assert_allclose(advantages[0].numpy(), deviation / (np.abs(deviation).mean() + 1e-4), rtol=1e-9)


def judged(*rewards: list[float]) -> GroupScores:
    of_each = {f"judge{index}": np.array(values) for index, values in enumerate(rewards)}
    return replace(scores(rewards[0]), rewards=of_each)


def test_judges_count_by_their_weights_each_on_its_own_scale() -> None:
    first, second = [0.1, 0.5, 0.9, 0.4], [20.0, 5.0, 0.0, 10.0]
    weights = {"judge0": 1.0, "judge1": 3.0}
    advantages, _ = batch_advantages([judged(first, second)], weights, ObjectiveConfig(acd_weight=0.0))
    scaled = [(np.array(values) - np.mean(values)) / np.std(values) for values in (first, second)]
    together = (scaled[0] + 3.0 * scaled[1])[None]
    np.testing.assert_allclose(advantages.numpy(), by_hand(together, together, 0.0), rtol=1e-9)


def test_a_judge_of_no_weight_is_not_learned_from_and_its_failures_cost_nothing() -> None:
    batch = [judged([0.1, 0.5, 0.9, 0.4], [np.nan, np.nan, np.nan, 1.0])]
    alone, _ = batch_advantages(batch, {"judge0": 2.0}, ObjectiveConfig())
    both, skipped = batch_advantages(batch, {"judge0": 2.0, "judge1": 0.0}, ObjectiveConfig())
    assert skipped == (None,)
    assert both.equal(alone)


@pytest.mark.parametrize("changes", [{"seed": 8}, {"version": 4}, {"task_id": "other"}])
def test_another_run_version_or_task_draws_other_anchors_and_steps(changes: dict[str, object]) -> None:
    run = replace(RUN, steps=64, seed=changes.get("seed", RUN.seed))
    version, task_id = changes.get("version", 3), changes.get("task_id", "task")
    before, after = (replace(RUN, steps=64), 3, "task"), (run, version, task_id)
    assert draw_anchors(*before, 64, 32) != draw_anchors(*after, 64, 32)  # type: ignore[arg-type]
    assert draw_steps(*before, 32) == draw_steps(*before, 32)
    assert draw_steps(*before, 32) != draw_steps(*after, 32)  # type: ignore[arg-type]


def test_every_step_is_drawn_sometimes_the_first_and_the_last_included() -> None:
    drawn = [draw_steps(RUN, version, "task", 2) for version in range(64)]
    assert {step for steps in drawn for step in steps} == set(range(8))


def test_groups_are_dealt_in_turn_and_idle_work_is_the_first_groups_without_weight() -> None:
    work = [GroupWork(f"group{i}", f"task{i}", np.zeros(4), (1,), (0,), on_policy=True) for i in range(5)]
    shares = spread(work, 3, by_chain=False)
    assert [[item.group for item in share] for share in shares] == [
        ["group0", "group3"],
        ["group1", "group4"],
        ["group2", "group0"],
    ]
    assert [[item.weight for item in share] for share in shares] == [[1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]


@given(groups=st.integers(1, 9), anchors=st.integers(1, 8), ranks=st.integers(1, 6))
def test_every_chain_is_dealt_once_in_pieces_of_one_size_and_ranks_wait_no_longer_than_for_whole_groups(
    groups: int, anchors: int, ranks: int
) -> None:
    chosen = tuple(range(1, anchors + 1))
    work = [GroupWork(group, f"task{group}", np.zeros(9), chosen, (0,), on_policy=True) for group in range(groups)]
    shares = spread(work, ranks, by_chain=True)
    assert len({len(share) for share in shares}) == 1
    items = [item for share in shares for item in share]
    assert len({len(item.anchors) for item in items}) == 1
    counted = [item for item in items if item.weight > 0]
    chains = [(item.group, anchor) for item in counted for anchor in item.anchors]
    assert sorted(chains) == [(group, anchor) for group in range(groups) for anchor in chosen]
    assert all(item.weight == len(item.anchors) / anchors for item in counted)
    # The fewest rounds that any way of dealing needs, or 5 percent more of them.
    single = math.ceil(groups * anchors / ranks) * ranks
    assert idle_share(shares) <= max(0.05, 1 - groups * anchors / single) + 1e-12
    assert idle_share(shares) <= idle_share(spread(work, ranks, by_chain=False)) + 1e-12


def test_groups_that_come_out_even_stay_whole_and_a_batch_of_eight_never_leaves_two_or_three_ranks_idle() -> None:
    work = [GroupWork(f"group{i}", "task", np.zeros(9), (1, 2, 3), (0,), on_policy=True) for i in range(8)]
    assert all(len(item.anchors) == 3 for share in spread(work, 2, by_chain=True) for item in share)
    assert {idle_share(spread(work[:kept], ranks, by_chain=True)) for kept in (6, 8) for ranks in (2, 3)} == {0.0}


def test_groups_that_were_chosen_from_pools_are_compared_with_them_and_others_with_themselves() -> None:
    truth = np.array([0.5, 0.1, 0.45, 0.9, 0.55, 0.5, 0.48])
    pool = Explored(VERSION, RolloutSeeds(0, tuple(range(6))), (0, 1, 3, 4), {"j": 0.5 * truth, "onlooker": truth})
    chosen = replace(scores(truth[[0, 1, 3, 4]].tolist()), explored=pool)
    config = ObjectiveConfig(acd_weight=0.0)
    advantages, skipped = batch_advantages([chosen, scores([0.2, 0.4, 0.6, 0.8])], RUN.judge_weights, config)
    assert skipped == (None, None)
    unit = np.concatenate([truth, [0.2, 0.4, 0.6, 0.8]]).std()
    whole = (truth - truth.mean()) / (truth.std() + 1e-4 * unit)
    np.testing.assert_allclose(advantages[0], whole[[0, 1, 3, 4]], rtol=1e-8)
    assert advantages[1].mean() == pytest.approx(0.0, abs=1e-12)


def test_a_group_of_which_every_exact_score_failed_is_skipped_whatever_its_pool_was() -> None:
    pool = Explored(VERSION, RolloutSeeds(0, tuple(range(6))), (0, 1, 3, 4), {"j": np.linspace(0, 1, 7)})
    failed = replace(scores([np.nan] * 4), explored=pool)
    advantages, skipped = batch_advantages([failed, MINIBATCH[0]], RUN.judge_weights, ObjectiveConfig())
    assert skipped == ("too_few_valid", None)
    np.testing.assert_allclose(
        advantages[1], batch_advantages(MINIBATCH[:1], RUN.judge_weights, ObjectiveConfig()).advantages[0], rtol=1e-9
    )


def test_ranks_are_at_the_same_turn_which_counts_on_and_know_who_is_beside_something_stale() -> None:
    def item(name: str, *, on_policy: bool) -> GroupWork:
        return GroupWork(name, None, np.zeros(4), (1, 2), (0,), on_policy=on_policy)

    work = [item("a", on_policy=True), item("b", on_policy=False), item("c", on_policy=True), item("d", on_policy=True)]
    first, second = spread(work, 2, by_chain=True, turn=5, sharded=True)
    assert [(one.group, one.turn, one.beside_stale) for one in first] == [("a", 5, True), ("c", 6, False)]
    assert [(one.group, one.turn, one.beside_stale) for one in second] == [("b", 5, False), ("d", 6, False)]
    whole = spread(work, 2, by_chain=True, turn=5)
    assert not any(one.beside_stale for share in whole for one in share)
