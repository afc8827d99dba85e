import numpy as np

from rc_grpo.messages import GroupScores
from reward_service.panel import merged

NAN = float("nan")


def scores(judge: str, *rewards: float, reason: str | None = None, **more: float) -> GroupScores:
    return GroupScores(
        "task",
        judge,
        np.array(rewards),
        np.full(len(rewards), 0.5),
        {f"{judge}.success": 25 * np.array(rewards)},
        (reason,) * len(rewards),
        **more,  # type: ignore[arg-type]
    )


def test_each_judge_keeps_its_reward_and_the_task_reward_is_their_weighted_mean() -> None:
    parts = {"vlm": scores("vlm", 0.2, 0.8, latency=3.0), "truth": scores("truth", 0.6, 0.4, reason="measured")}
    group = merged(parts, {"vlm": 3.0, "truth": 1.0})
    np.testing.assert_allclose(group.task_reward, [0.3, 0.7])
    np.testing.assert_array_equal(group.rewards["vlm"], [0.2, 0.8])
    np.testing.assert_array_equal(group.rewards["truth"], [0.6, 0.4])
    assert set(group.columns) == {"reward.vlm", "reward.truth", "judge.vlm.success", "judge.truth.success"}
    assert group.reasons == ("truth: measured",) * 2
    assert (group.judge, group.latency) == ("vlm+truth", 3.0)


def test_a_failed_score_of_a_judge_that_counts_is_no_reward() -> None:
    parts = {"vlm": scores("vlm", NAN, 0.8), "truth": scores("truth", 0.6, 0.4)}
    np.testing.assert_array_equal(merged(parts, {"vlm": 1.0, "truth": 1.0}).task_reward, [NAN, 0.6000000000000001])


def test_a_judge_of_weight_0_is_heard_and_does_not_count_even_when_it_fails() -> None:
    parts = {"vlm": scores("vlm", 0.2, 0.8), "truth": scores("truth", NAN, 0.4)}
    group = merged(parts, {"vlm": 1.0, "truth": 0.0})
    np.testing.assert_array_equal(group.task_reward, [0.2, 0.8])
    np.testing.assert_array_equal(group.rewards["truth"], [NAN, 0.4])


def test_scores_of_several_judges_survive_arrow() -> None:
    group = merged({"a": scores("a", 0.1, NAN), "b": scores("b", 0.2, 0.3)}, {"a": 1.0, "b": 1.0})
    again = GroupScores.from_arrow(group.to_arrow())
    assert set(again.rewards) == {"a", "b"}
    for name, values in group.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
