"""A dead actor changes nothing but the time: its work is made again from the same seeds."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import ray

from rc_grpo.editor import lora
from rc_grpo.editor.loading import load_denoiser
from rc_grpo.messages import CandidateGroup, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld
from rc_grpo.pool import PoolError
from reward_service.panel import JudgePanel
from rollout_workers.pool import RolloutPool
from tests.integration.conftest import short_config

pytestmark = pytest.mark.usefixtures("cluster")
TASK = PocketWorld("train", 12)[2]
SEEDS = RolloutSeeds.for_group(7, 0, TASK.task_id, 4)


def test_a_killed_rollout_worker_is_replaced_and_its_group_is_the_same_bits(tmp_path: Path) -> None:
    config = short_config(tmp_path, "killed", "rollout.steps=12")
    weights = lora.copied(load_denoiser(config.editor, config.seed).policy.weights())
    version = PolicyVersion(0, lora.digest(weights), lora.count_modules(weights), lora.is_identity(weights))

    async def scenario() -> None:
        rollouts = RolloutPool(config.editor, config.rollout, config.seed, "killed")
        judges = JudgePanel(config.reward, "killed")
        try:
            await asyncio.gather(rollouts.open(), judges.open())
            await rollouts.adopt(version, ray.put(np.frombuffer(lora.serialise(weights), dtype=np.uint8)))
            before = await rollouts.rollout(TASK, SEEDS)
            worker = await ray.get_actor("rollout-0", "killed").describe.remote()
            under_way = asyncio.create_task(rollouts.rollout(TASK, SEEDS))
            await asyncio.sleep(0.1)
            os.kill(worker["pid"], signal.SIGKILL)
            after = await under_way
            first, second = [CandidateGroup.from_arrow(await group.group) for group in (before, after)]
            assert (first.worker, second.worker) == ("rollout-0", "rollout-1")
            np.testing.assert_array_equal(first.states, second.states)
            np.testing.assert_array_equal(first.images, second.images)
            assert rollouts.summary["lost"] == 1
            assert {name: proof.digest for name, proof in rollouts.proofs.items()} == {
                "rollout-0": version.digest,
                "rollout-1": version.digest,
            }

            # With nothing to do: another one is there, and has proved its version, before anybody calls.
            idle = await ray.get_actor("rollout-1", "killed").describe.remote()
            os.kill(idle["pid"], signal.SIGKILL)
            while "rollout-2" not in rollouts.proofs:
                await asyncio.sleep(0.1)
            assert "rollout-1 was lost while idle" in rollouts.statistics.reasons[-1]

            judge = await ray.get_actor("reward-ground_truth-0", "killed").describe.remote()
            os.kill(judge["pid"], signal.SIGKILL)
            scores = await judges.score(TASK, after.group)
            assert np.isfinite(scores.task_reward).all()
            assert judges.pools["ground_truth"].summary["lost"] == 1
        finally:
            rollouts.close()
            judges.close()

    asyncio.run(asyncio.wait_for(scenario(), 180))


def test_a_worker_that_cannot_prove_its_version_gets_no_work(tmp_path: Path) -> None:
    config = short_config(tmp_path, "liar", "rollout.attempts=2")
    weights = lora.copied(load_denoiser(config.editor, config.seed).policy.weights())
    lie = PolicyVersion(1, "0" * 64, lora.count_modules(weights), is_identity=True)

    async def scenario() -> None:
        rollouts = RolloutPool(config.editor, config.rollout, config.seed, "liar")
        try:
            await rollouts.open()
            with pytest.raises(PoolError, match="no policy version"):
                await rollouts.rollout(TASK, SEEDS)
            await rollouts.adopt(lie, ray.put(np.frombuffer(lora.serialise(weights), dtype=np.uint8)))
            with pytest.raises(PoolError, match="digest of the applied weights"):
                await rollouts.rollout(TASK, SEEDS)
            assert rollouts.summary["lost"] + rollouts.summary["failed_starts"] >= 2
        finally:
            rollouts.close()

    asyncio.run(asyncio.wait_for(scenario(), 180))
