"""A collector that explores: which pool it asks for, what it makes again, and what becomes of pools that fail."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from deploy.batches.collector import Collector
from deploy.batches.lessons import Lessons
from deploy.records.metrics import explore_metrics
from rc_grpo.config import ObjectiveConfig
from rc_grpo.messages import EditTask, GroupScores, RolloutReceipt, RolloutSeeds, ScoredGroup
from rollout_workers.pool import Rollout

from .test_collector import TASKS, VERSION, Judges, Ledger, Rollouts, batches_of

G, M = 4, 9
POOL = np.array([0.5, 0.1, 0.9, np.nan, 0.4, 0.8, 0.2, np.nan, 0.6])


class Explorers(Rollouts):
    def __init__(self) -> None:
        super().__init__()
        self.pools: list[tuple[str, RolloutSeeds]] = []

    async def explore(self, task: EditTask, seeds: RolloutSeeds) -> Rollout:
        self.pools.append((task.task_id, seeds))
        digests = tuple(f"{index:064x}" for index in range(seeds.group_size))
        return Rollout(RolloutReceipt(task.task_id, VERSION, "w", (), 0.0, {"a": 2.0, "b": 1.0}, digests), "pool", None)


class ScoringPools(Judges):
    def __init__(self, pool: np.ndarray = POOL, losses: int = 0) -> None:
        super().__init__(losses)
        self.pool = pool

    async def score(self, task: EditTask, group: object) -> GroupScores:
        if group != "pool":
            return await super().score(task, group)
        return GroupScores(task.task_id, "j", self.pool, np.full(M, np.nan), pruned=(3,))


def explored(rollouts: Rollouts, judges: Judges) -> tuple[Collector, list[list[ScoredGroup]]]:
    async def scenario() -> tuple[Collector, list[list[ScoredGroup]]]:
        ledger = Ledger(len(TASKS), updates=3, groups_per_update=2, max_staleness=0, seed=0)
        lessons = Lessons({"j": 1.0, "onlooker": 0.0}, ObjectiveConfig(acd_weight=0.0))
        source = Collector(ledger, TASKS, G, 3, lessons, asyncio.Event(), M)
        return source, await batches_of(source, rollouts, judges)

    return asyncio.run(scenario())


def test_a_group_is_made_of_the_seeds_that_the_pools_scores_chose() -> None:
    rollouts = Explorers()
    _, batches = explored(rollouts, ScoringPools())
    for group, (_, pool), (_, made) in zip(
        [*batches[0], *batches[1], *batches[2]], rollouts.pools, rollouts.made, strict=True
    ):
        assert group.scores.explored is not None
        assert group.scores.explored.chosen == (0, 1, 2, 5)
        assert pool.group_size == M
        assert made == RolloutSeeds(pool.reference, (pool.deltas[0], pool.deltas[1], pool.deltas[4]))
        assert group.scores.explored.seeds == pool
        assert group.receipt.seconds["explore"] == 3.0
        np.testing.assert_array_equal(group.scores.explored.rewards["j"], POOL)


def test_a_pool_begins_with_the_candidates_that_there_would_be_without_it() -> None:
    rollouts = Explorers()
    explored(rollouts, ScoringPools())
    for wave, (task_id, seeds) in zip((0, 0, 1, 1, 2, 2), rollouts.pools, strict=True):
        assert seeds.of(range(G)) == RolloutSeeds.for_group(0, wave, task_id, G)


def test_where_too_few_of_a_pool_have_a_score_its_first_candidates_are_the_group() -> None:
    rollouts, failing = Explorers(), np.where(np.arange(M) < 3, POOL, np.nan)
    _, batches = explored(rollouts, ScoringPools(failing))
    assert [group.scores.explored for batch in batches for group in batch] == [None] * 6
    assert [made for _, made in rollouts.made] == [pool.of(range(G)) for _, pool in rollouts.pools]


def test_a_group_that_is_lost_is_explored_again_from_the_same_seeds() -> None:
    rollouts = Explorers()
    source, _ = explored(rollouts, ScoringPools(losses=1))
    assert source.counts["remade"] == 1
    assert len(rollouts.pools) == 7
    assert len({seeds.reference for _, seeds in rollouts.pools}) == 6


def test_what_is_measured_of_pools() -> None:
    _, batches = explored(Explorers(), ScoringPools())
    scores = [replace(group.scores, rewards={"j": np.array([0.6, 0.2, 1.0, np.nan])}) for group in batches[0]]
    metrics = explore_metrics(scores)
    assert metrics["explore/candidates"] == 2 * M
    assert (metrics["explore/failed_scores"], metrics["explore/pruned"]) == (2, 2)
    assert metrics["explore/j_shift"] == pytest.approx(0.1)
    assert metrics["explore/j_agreement"] == pytest.approx(1.0)
    assert explore_metrics([replace(one, explored=None) for one in scores]) == {}
