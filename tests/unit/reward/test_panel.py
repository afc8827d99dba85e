import asyncio
from dataclasses import replace

import numpy as np
import pytest

from rc_grpo.config import GroundTruthConfig, PairwiseConfig, RewardConfig
from rc_grpo.messages import EditTask, GroupScores
from reward_service.panel import JudgePanel, merged

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


def test_of_several_judges_the_longest_and_the_most_persistent_count_and_all_that_was_said() -> None:
    parts = {
        "vlm": scores("vlm", 0.2, 0.8, 0.4, reason="seen", attempts=1, latency=2.0),
        "truth": scores("truth", 0.6, 0.4, 0.2, attempts=3, latency=1.0),
        "third": scores("third", 0.1, 0.1, 0.1, reason="measured", attempts=2, latency=0.5),
    }
    parts["truth"] = replace(parts["truth"], reasons=("", "blurred", "far"))
    group = merged(parts, {"vlm": 1.0, "truth": 1.0, "third": 0.0})
    assert (group.task_id, group.judge, group.attempts, group.latency) == ("task", "vlm+truth+third", 3, 2.0)
    np.testing.assert_array_equal(group.acd_reward, [0.5, 0.5, 0.5])
    assert list(group.rewards) == list(parts)
    assert list(group.subscores) == [f"{name}.success" for name in parts]
    assert group.reasons == (
        "vlm: seen || third: measured",
        "vlm: seen || truth: blurred || third: measured",
        "vlm: seen || truth: far || third: measured",
    )


def test_where_nobody_says_anything_there_is_no_reason() -> None:
    assert merged({"a": scores("a", 0.1), "b": scores("b", 0.2)}, {"a": 1.0, "b": 1.0}).reasons == (None,)


def test_a_single_judge_is_handed_on_as_it_is() -> None:
    alone = scores("a", 0.1, 0.2)
    assert merged({"a": alone}, {"a": 1.0}) is alone


def test_where_nobody_counts_all_do_alike() -> None:
    parts = {"vlm": scores("vlm", 0.2), "truth": scores("truth", 0.6)}
    np.testing.assert_allclose(merged(parts, {"vlm": 0.0, "truth": 0.0}).task_reward, [0.4])


class Pool:
    """A judge's pool that keeps what is asked of it; all of a panel's calls meet before the first is answered."""

    meeting: asyncio.Barrier

    def __init__(self, name: str, config: object, namespace: str, prune: int | None) -> None:
        assert prune is None
        self.made = (name, config, namespace)
        self.role, self.summary = f"reward-{name}", {"size": float(len(name))}
        self.name, self.calls = name, []

    async def _met(self, *call: object) -> None:
        self.calls.append(call)
        await asyncio.wait_for(self.meeting.wait(), timeout=5.0)

    async def open(self) -> None:
        await self._met("open")

    async def drain(self) -> None:
        await self._met("drain")

    def close(self) -> None:
        self.calls.append(("close",))

    async def score(self, task: object, group: object) -> GroupScores:
        await self._met("score", task, group)
        return scores(self.name, 0.2 if self.name == "first" else 0.6)

    async def server_metrics(self, deadline: float) -> dict[str, float]:
        await self._met("server_metrics", deadline)
        return {"requests": len(self.name)}


@pytest.mark.parametrize(("size", "heard"), [(1, ["vlm"]), (2, ["pair", "vlm"])])
def test_of_a_single_edit_a_judge_that_compares_says_nothing_and_the_others_measure(
    size: int, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scoring(Pool):
        async def score(self, task: object, group: object) -> GroupScores:
            return scores(self.name, *([0.8] * size if self.name == "vlm" else [NAN] * size))

    monkeypatch.setattr("reward_service.panel.RewardPool", Scoring)
    judges = {"pair": PairwiseConfig(kind="pairwise", model="m"), "vlm": GroundTruthConfig(weight=0.0)}
    panel = JudgePanel(RewardConfig(judges=judges), "space")
    group = asyncio.run(panel.score(EditTask("t", "add", b"", "", b""), "group"))
    assert list(group.rewards) == heard
    np.testing.assert_array_equal(group.task_reward, [0.8] if size == 1 else [NAN] * 2)


def test_a_panel_asks_all_its_judges_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward_service.panel.RewardPool", Pool)
    judges = {"first": GroundTruthConfig(weight=3.0), "second": GroundTruthConfig(weight=1.0)}
    panel = JudgePanel(RewardConfig(judges=judges, metrics_deadline_s=7.5), "space")
    task = EditTask("t", "add", b"", "", b"")

    async def use() -> tuple[GroupScores, dict[str, float]]:
        monkeypatch.setattr(Pool, "meeting", asyncio.Barrier(2), raising=False)
        await panel.open()
        group = await panel.score(task, "group")
        metrics = await panel.server_metrics()
        await panel.drain()
        return group, metrics

    group, metrics = asyncio.run(use())
    panel.close()
    np.testing.assert_allclose(group.task_reward, [0.3])
    assert list(group.rewards) == ["first", "second"]
    np.testing.assert_array_equal(group.rewards["second"], [0.6])
    assert metrics == {"judge_server/first/requests": 5.0, "judge_server/second/requests": 6.0}
    assert panel.summaries == {"reward-first": {"size": 5.0}, "reward-second": {"size": 6.0}}
    calls = [("open",), ("score", task, "group"), ("server_metrics", 7.5), ("drain",), ("close",)]
    for name, pool in panel.pools.items():
        assert pool.made == (name, judges[name], "space")
        assert pool.calls == calls


def test_scores_of_several_judges_survive_arrow() -> None:
    group = merged({"a": scores("a", 0.1, NAN), "b": scores("b", 0.2, 0.3)}, {"a": 1.0, "b": 1.0})
    again = GroupScores.from_arrow(group.to_arrow())
    assert set(again.rewards) == {"a", "b"}
    for name, values in group.columns.items():
        np.testing.assert_array_equal(again.columns[name], values)
