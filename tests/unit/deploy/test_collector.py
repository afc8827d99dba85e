"""The collector with pools that are no pools: what it does when trajectories are lost and when it is to stop."""

import asyncio
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ObjectLostError

from deploy.batches.collector import Collector
from deploy.batches.ledger import Ledger
from deploy.batches.lessons import Lessons
from rc_grpo.config import ObjectiveConfig
from rc_grpo.messages import EditTask, GroupScores, PolicyVersion, RolloutReceipt, RolloutSeeds
from rc_grpo.pool import PoolError
from rollout_workers.pool import Rollout

TASKS = [EditTask(f"task-{number}", "add", b"", "", b"") for number in range(6)]
VERSION = PolicyVersion(0, "d", 1, is_identity=True)


class Rollouts:
    def __init__(self) -> None:
        self.made: list[tuple[str, RolloutSeeds]] = []

    async def rollout(self, task: EditTask, seeds: RolloutSeeds) -> Rollout:
        self.made.append((task.task_id, seeds))
        return Rollout(RolloutReceipt(task.task_id, VERSION, "w", (), 0.0, {}), group=len(self.made), conditions=None)


class Judges:
    def __init__(self, losses: int) -> None:
        self.losses = losses

    async def score(self, task: EditTask, group: object) -> GroupScores:
        if self.losses:
            self.losses -= 1
            raise ObjectLostError("0" * 56, None, "")
        rewards = self.rewards_of(task)
        reasons = tuple("refused" if np.isnan(reward) else None for reward in rewards)
        return GroupScores(task.task_id, "j", rewards, np.zeros(len(rewards)), reasons=reasons)

    def rewards_of(self, task: EditTask) -> np.ndarray:
        return np.array([0.1, 0.2, 0.3, 0.4])


class Learner:
    version = VERSION


def collector(stop: asyncio.Event, attempts: int = 3, refills: int = 0) -> Collector:
    ledger = Ledger(len(TASKS), updates=3, groups_per_update=2, max_staleness=0, seed=0, refills=refills)
    return Collector(ledger, TASKS, 4, attempts, Lessons({"j": 1.0}, ObjectiveConfig(acd_weight=0.0)), stop)


async def batches_of(source: Collector, rollouts: Any, judges: Any) -> list[Any]:
    return [batch async for batch in source.batches(rollouts, judges, Learner(), range(3))]  # type: ignore[arg-type]


def test_a_group_whose_trajectories_are_lost_is_made_again_from_the_same_seeds() -> None:
    async def scenario() -> None:
        source, rollouts = collector(asyncio.Event()), Rollouts()
        batches = await batches_of(source, rollouts, Judges(losses=1))
        assert [len(batch) for batch in batches] == [2, 2, 2]
        assert len(rollouts.made) == 7
        assert len({(task, seeds.reference) for task, seeds in rollouts.made}) == 6
        assert source.counts["remade"] == 1
        assert source.counts["learned"] == 6

    asyncio.run(scenario())


def test_a_group_that_is_lost_again_and_again_ends_the_run_in_words() -> None:
    async def scenario() -> None:
        source = collector(asyncio.Event(), attempts=2)
        with pytest.raises(PoolError, match="were lost 2 times before they were scored"):
            await batches_of(source, Rollouts(), Judges(losses=100))
        await source.cancel()

    asyncio.run(scenario())


def test_a_stop_ends_the_batches_even_while_one_is_waited_for() -> None:
    class Slow(Rollouts):
        async def rollout(self, task: EditTask, seeds: RolloutSeeds) -> Rollout:
            await asyncio.sleep(60)
            return await super().rollout(task, seeds)

    async def scenario() -> None:
        stop = asyncio.Event()
        source = collector(stop)
        asyncio.get_running_loop().call_later(0.05, stop.set)
        assert await batches_of(source, Slow(), Judges(0)) == []
        waiting = source.waits.now
        await source.cancel()
        assert source.counts["under_way"] == 2
        assert waiting == ()

    asyncio.run(asyncio.wait_for(scenario(), 10))


class Picky(Judges):
    """Sees a difference in the edits of some tasks alone; the others are tied, or fail."""

    def __init__(self, *good: int, otherwise: float = 0.5) -> None:
        super().__init__(losses=0)
        self.good = {TASKS[index].task_id for index in good}
        self.otherwise = otherwise

    def rewards_of(self, task: EditTask) -> np.ndarray:
        return super().rewards_of(task) if task.task_id in self.good else np.full(4, self.otherwise)


@pytest.mark.parametrize("otherwise", [0.5, np.nan])
def test_a_batch_of_groups_that_teach_nothing_is_filled_from_further_tasks(otherwise: float) -> None:
    async def scenario() -> None:
        source = collector(asyncio.Event(), refills=9)
        batches = await batches_of(source, Rollouts(), Picky(1, 4, otherwise=otherwise))
        assert [{item.task.task_id for item in batch} <= {"task-1", "task-4"} for batch in batches] == [True] * 3
        assert [len(batch) for batch in batches] == [2, 2, 2]
        reason = "tied_task_rewards" if otherwise == 0.5 else "too_few_valid"
        assert source.counts[f"replaced_{reason}"] > 0

    asyncio.run(scenario())


def test_a_batch_that_cannot_be_filled_comes_as_it_is_after_so_many_tries() -> None:
    async def scenario() -> None:
        source, rollouts = collector(asyncio.Event(), refills=2), Rollouts()
        batches = await batches_of(source, rollouts, Picky())
        assert [len(batch) for batch in batches] == [2, 2, 2]
        assert len(rollouts.made) == 3 * 2 * (1 + 2)
        assert len({(task, seeds.reference) for task, seeds in rollouts.made}) == len(rollouts.made)
        assert source.counts["replaced_tied_task_rewards"] == 3 * 2 * 2

    asyncio.run(scenario())


def test_a_filled_batch_does_not_depend_on_who_comes_first() -> None:
    class Shuffled(Rollouts):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.random = np.random.default_rng(seed)

        async def rollout(self, task: EditTask, seeds: RolloutSeeds) -> Rollout:
            await asyncio.sleep(float(self.random.uniform(0, 2e-3)))
            return await super().rollout(task, seeds)

    async def filled(seed: int) -> list[list[str]]:
        batches = await batches_of(collector(asyncio.Event(), refills=3), Shuffled(seed), Picky(0, 3))
        return [[item.task.task_id for item in batch] for batch in batches]

    assert asyncio.run(filled(1)) == asyncio.run(filled(2)) == asyncio.run(filled(3))
