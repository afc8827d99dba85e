"""The reward pool: hands whole groups to whichever reward actor is free."""

from typing import Any

import ray
from ray.exceptions import RayActorError

from rc_grpo.config import RewardConfig
from rc_grpo.messages import EditTask, GroupScores
from rc_grpo.pool import Member, WorkerPool
from reward_service.actor import RewardActor


class RewardPool(WorkerPool[Any]):
    """Reward actors that come and go.

    Args:
        config: the pool and the judge.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(self, config: RewardConfig, namespace: str) -> None:
        super().__init__("reward", config, self._start_actor, ray.kill, lost=(RayActorError,))
        self._reward = config
        self._namespace = namespace

    async def score(self, task: EditTask, group: Any) -> GroupScores:
        """Score one group.

        Args:
            task: what was to be edited.
            group: reference to the group's record batch.
        """

        async def call(member: Member[Any]) -> GroupScores:
            scores: GroupScores = await member.handle.score.remote(task, group)
            return scores

        return await self.run(f"the scoring of {task.task_id}", call)

    async def _start_actor(self, name: str) -> Any:
        actor = RewardActor.options(**self._reward.actor_options(self._namespace, name)).remote(name, self._reward)
        await actor.describe.remote()
        return actor
