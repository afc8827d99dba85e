"""The collector with pools that are no pools: what it does when trajectories are lost and when it is to stop."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import ObjectLostError

from deploy.batches.collector import Collector
from deploy.batches.ledger import Ledger
from rc_grpo.messages import EditTask, PolicyVersion, RolloutReceipt, RolloutSeeds
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

    async def score(self, task: EditTask, group: object) -> str:
        if self.losses:
            self.losses -= 1
            raise ObjectLostError("0" * 56, None, "")
        return f"scores of {group}"


class Learner:
    version = VERSION


def collector(stop: asyncio.Event, attempts: int = 3) -> Collector:
    ledger = Ledger(len(TASKS), updates=3, groups_per_update=2, max_staleness=0, seed=0)
    return Collector(ledger, TASKS, 4, attempts, stop)


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
