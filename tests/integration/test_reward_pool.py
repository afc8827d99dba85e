"""Several replicas of a judge behind real reward actors: groups go where they are served, and only there wait."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import numpy as np
import pytest
import ray
from aiohttp import web

from rc_grpo.config import EditScoreConfig
from rc_grpo.images import decode_rgb
from rc_grpo.messages import CandidateGroup, GroupScores, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.pool import PoolError
from reward_service.judge import JudgeSetupError
from reward_service.pool import RewardPool
from tests.unit.reward.chat_server import ChatServer, Reply, marks, refusal, serving, texts

pytestmark = pytest.mark.usefixtures("cluster")
TASK = PocketWorld("train", 1)[0]
GROUP = CandidateGroup(
    TASK.task_id,
    RolloutSeeds(1, (2,)),
    PolicyVersion(0, "d", 1, is_identity=True),
    np.array([1.0, 0.0]),
    np.ones(4, dtype=bool),
    np.stack([decode_rgb(TASK.source)] * 2),
    np.zeros(2, dtype=np.float32),
)


async def good(body: dict[str, Any]) -> web.Response:
    return texts(*[marks(25, 25)] * body["n"])


async def slow(body: dict[str, Any]) -> web.Response:
    await asyncio.sleep(2.0)
    return await good(body)


async def down(_: dict[str, Any]) -> web.Response:
    return refusal(503, "engine died")


async def hanging(_: dict[str, Any]) -> web.Response:
    await asyncio.sleep(600)
    return refusal(503, "never said")


@asynccontextmanager
async def replicas(*replies: Reply, **settings: Any) -> AsyncIterator[tuple[RewardPool, list[ChatServer]]]:
    """A pool with an actor for each of these servers."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(reply)) for reply in replies]
        config = EditScoreConfig.model_validate(
            {
                "kind": "editscore",
                "model": "judge",
                "family": "qwen2_5_vl",
                "urls": [server.url for server in servers],
                "workers": len(servers),
                "resources": {"num_cpus": 0.5},
                "groups_in_flight": 2,
                "client": {"request_deadline_s": 3, "tries": 2, "backoff_s": 0.01, "backoff_max_s": 0.02},
                "start_deadline_s": 60,
                **settings,
            }
        )
        pool = RewardPool("vlm", config, f"replicas-{time.monotonic_ns()}")
        try:
            await pool.open()
            for server in servers:
                server.requests.clear()  # Each actor's opening question.
            yield pool, servers
        finally:
            await pool.drain()
            pool.close()


async def score(pool: RewardPool, groups: int) -> list[GroupScores]:
    reference = ray.put(GROUP.to_arrow())
    return list(await asyncio.gather(*(pool.score(TASK, reference) for _ in range(groups))))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")


def run(scenario: Any) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_a_group_goes_to_one_replica_whole_and_the_least_busy_is_chosen() -> None:
    async def scenario() -> None:
        async with replicas(good, good) as (pool, servers):
            scores = await score(pool, 12)
            assert all((item.task_reward == 1.0).all() for item in scores)
            assert {item.judge for item in scores} == {"vlm"}
            asked = [len(server.requests) for server in servers]
            assert sum(asked) == 12 * 2 * 2
            # Every group is two candidates by two questions, all at the same replica. A machine that is busy with
            # something else answers unevenly.
            assert all(count % 4 == 0 and count >= 8 for count in asked)

    run(scenario)


def test_a_slow_replica_does_not_hold_up_the_other() -> None:
    async def scenario() -> None:
        async with replicas(good, slow) as (pool, servers):
            await score(pool, 16)
            counts = Counter({index: len(server.requests) // 4 for index, server in enumerate(servers)})
            assert counts[1] <= 4 < counts[0]

    run(scenario)


@pytest.mark.parametrize("broken", [down, hanging])
def test_the_groups_of_a_replica_that_fails_are_scored_elsewhere(broken: Reply) -> None:
    async def scenario() -> None:
        async with replicas(good, broken) as (pool, _):
            scores = await score(pool, 8)
            assert all((item.task_reward == 1.0).all() for item in scores)
            assert pool.statistics.rested >= 1
            assert pool.statistics.lost == 0

    run(scenario)


def test_a_judge_that_no_replica_can_serve_ends_the_run_and_gives_no_rewards() -> None:
    async def scenario() -> None:
        async with replicas(down) as (pool, _):
            with pytest.raises(PoolError, match="engine died"):
                await score(pool, 1)

    run(scenario)


def test_a_model_that_the_server_does_not_have_is_said_at_the_start() -> None:
    async def scenario() -> None:
        async with replicas(good, model="another"):
            pass

    with pytest.raises(JudgeSetupError, match=r"no model 'another'.*it has judge"):
        run(scenario)
