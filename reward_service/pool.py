"""The reward pool: hands whole groups to whichever reward actor is free."""

from typing import Any

import ray
from ray.exceptions import RayActorError

from rc_grpo.config import RewardConfig
from rc_grpo.messages import EditTask, GroupScores
from rc_grpo.pool import Member, WorkerPool
from reward_service.actor import RewardActor


class RewardPool:
    """Reward actors that come and go.

    Args:
        config: the pool and the judge.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(self, config: RewardConfig, namespace: str) -> None:
        self._config = config
        self._namespace = namespace
        self._pool: WorkerPool[Any] = WorkerPool("reward", config, self._start, ray.kill, lost=(RayActorError,))

    @property
    def summary(self) -> dict[str, float]:
        """Workers up, workers lost and busy seconds since the start."""
        return self._pool.summary

    async def open(self) -> None:
        """Start the workers."""
        await self._pool.open()

    def close(self) -> None:
        """Stop the workers."""
        self._pool.close()

    async def score(self, task: EditTask, group: Any) -> GroupScores:
        """Score one group.

        Args:
            task: what was to be edited.
            group: reference to the group's record batch.
        """

        async def call(member: Member[Any]) -> GroupScores:
            scores: GroupScores = await member.handle.score.remote(task, group)
            return scores

        return await self._pool.run(f"the scoring of {task.task_id}", call)

    async def _start(self, name: str) -> Any:
        actor = RewardActor.options(**self._config.actor_options(self._namespace, name)).remote(name, self._config)
        await actor.describe.remote()
        return actor
