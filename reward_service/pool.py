"""The pool of one judge: hands whole groups to the least busy of its actors."""

import asyncio
import os
from collections import Counter
from typing import Any

import ray
from ray.exceptions import RayActorError

from rc_grpo.config import AnyJudgeConfig, JudgePlugin, ServedConfig, dump_judge
from rc_grpo.messages import EditTask, GroupScores
from rc_grpo.pool import WorkerPool
from rc_grpo.seats import Member
from rc_grpo.waiting import answers, or_undo
from reward_service.actor import RewardActor
from reward_service.judge import JudgeUnavailableError

_CONTROL_CALLS = 4
"""Calls beside the scorings that an actor answers at the same time: metrics, readiness, description, end."""


class RewardPool(WorkerPool[Any]):
    """Reward actors of one judge, that come and go.

    Args:
        judge: its name in the configuration.
        config: the pool and the judge.
        namespace: Ray namespace in which the actors are named ``reward-JUDGE-0`` and so on.
        prune: see `rc_grpo.config.RewardConfig`.
    """

    def __init__(self, judge: str, config: AnyJudgeConfig, namespace: str, prune: int | None = None) -> None:
        super().__init__(
            f"reward-{judge}",
            config,
            self._start_actor,
            self._stop_actor,
            lost=(RayActorError,),
            unable=(JudgeUnavailableError,),
            recover=lambda actor: actor.ready.remote(),
            drain=self._drain_actor,
            alive=answers,
            calls_at_a_time=config.groups_in_flight,
        )
        self._judge = judge
        self._reward = config
        self._namespace = namespace
        self._prune = prune
        self._attached: dict[Any, str] = {}

    async def score(self, task: EditTask, group: Any) -> GroupScores:
        """Score one group.

        Args:
            task: what was to be edited.
            group: reference to the group's record batch.

        Raises:
            PoolError: several actors in a row could not score it.
            JudgeSetupError: none ever will.
        """

        async def call(member: Member[Any]) -> GroupScores:
            named = member.handle.score.options(name=f"scoring of {task.task_id} by {self._judge}")
            scores: GroupScores = await named.remote(task, group)
            return scores

        return await self.run(f"the scoring of {task.task_id} by {self._judge}", call)

    async def drain(self) -> None:
        """Let every actor finish and end its server; what does not within its deadline is killed by `close`."""
        await asyncio.gather(*(self._drain_actor(member.handle) for member in self.members))

    async def server_metrics(self, deadline: float) -> dict[str, float]:
        """Return the servers' own figures, added up over the actors; those that do not answer in time are left out."""
        answers = await asyncio.gather(
            *(asyncio.wait_for(member.handle.metrics.remote(), deadline) for member in self.members),
            return_exceptions=True,
        )
        total: Counter[str] = Counter()
        for answer in answers:
            if not isinstance(answer, BaseException):
                total.update(answer)
        return dict(total)

    async def _start_actor(self, name: str) -> Any:
        attach = self._attachment()
        options = self._reward.actor_options(self._namespace, name)
        actor = RewardActor.options(**options, max_concurrency=self._reward.groups_in_flight + _CONTROL_CALLS).remote(
            name, self._judge, dump_judge(self._reward), attach, self._prune
        )
        if attach is not None:
            self._attached[actor] = attach[0]
        await or_undo(actor.open.remote(), lambda: self._stop_actor(actor))
        return actor

    async def _drain_actor(self, actor: Any) -> None:
        if (grace := self._grace) is not None:
            ending = asyncio.wrap_future(actor.close.remote(grace).future())
            # Once for the scorings, once for the server.
            await asyncio.wait([ending], timeout=2 * grace + 5.0)

    @property
    def _grace(self) -> float | None:
        """Seconds that an actor may take to finish and to end what it started; None where it starts nothing."""
        match self._reward:
            case ServedConfig(server=server):
                return server.drain_deadline_s
            case JudgePlugin(drain_deadline_s=seconds):
                return seconds
        return None

    def _stop_actor(self, actor: Any) -> None:
        self._attached.pop(actor, None)
        ray.kill(actor)

    def _attachment(self) -> tuple[str, str] | None:
        """Return address and key of the configured server that has the fewest actors, if servers are configured."""
        if not isinstance(self._reward, ServedConfig) or not self._reward.urls:
            return None
        users = Counter(self._attached.values())
        return min(self._reward.urls, key=lambda url: users[url]), os.environ[self._reward.api_key_variable]
