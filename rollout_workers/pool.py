"""The rollout pool: keeps every worker at the newest policy version and hands tasks to whoever is free."""

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError

from rc_grpo.config import EditorConfig, RolloutConfig
from rc_grpo.messages import (
    EditTask,
    PolicyVersion,
    RolloutReceipt,
    RolloutSeeds,
    VersionMismatchError,
    VersionProof,
)
from rc_grpo.pool import PoolError, WorkerPool
from rc_grpo.seats import Member
from rc_grpo.waiting import answers, or_undo
from rollout_workers.turns import Turns
from rollout_workers.worker import RolloutActor


@dataclass(frozen=True)
class Rollout:
    """A finished rollout as the driver sees it: a receipt, and references to what stays in the object store."""

    receipt: RolloutReceipt
    group: Any
    conditions: Any


class RolloutPool(WorkerPool[Any]):
    """Rollout actors that come and go; no process group spans them.

    Args:
        editor: which editor each worker loads.
        config: the pool and the rollouts.
        seed: of the run.
        namespace: Ray namespace in which the actors are named.
    """

    def __init__(self, editor: EditorConfig, config: RolloutConfig, seed: int, namespace: str) -> None:
        lost = (RayActorError, VersionMismatchError)
        super().__init__("rollout", config, self._start_actor, ray.kill, lost, alive=answers)
        self._editor = editor
        self._rollout = config
        self._seed = seed
        self._namespace = namespace
        self._version: PolicyVersion | None = None
        self._weights: Any = None
        self._published = 0.0
        self._held: dict[str, PolicyVersion] = {}
        self._turns = Turns()
        self._hosts: dict[str, str] = {}
        self.proofs: dict[str, VersionProof] = {}
        """The last proof of each worker that ever gave one."""
        self.sync_seconds: dict[str, float] = {}
        """How long after its adoption by the pool each worker had proved the last version it took."""

    async def adopt(self, version: PolicyVersion, weights: Any) -> None:
        """Make ``version`` the one that new rollouts run under.

        Returns at once, so that a slow worker holds nobody up: idle workers take it now, so many of a host at a time
        (`rollout_workers.turns`), busy ones before their next task, one that starts later before it joins.

        Args:
            version: what the weights are.
            weights: reference to their safetensors bytes in the object store.
        """
        self._version, self._weights, self._published = version, weights, time.monotonic()
        self.in_background(self.on_idle(f"the proof of {version}", self._bring_up_to_date))

    async def untrained(self) -> tuple[PolicyVersion, Any]:
        """Return version 0 and a reference to its weights, from a worker that has taken no version yet."""

        async def call(member: Member[Any]) -> tuple[PolicyVersion, Any]:
            version, weights = member.handle.untrained.options(num_returns=2).remote()
            return await version, weights

        return await self.run("the untrained policy", call)

    async def rollout(
        self,
        task: EditTask,
        seeds: RolloutSeeds,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        keep_states: bool = True,
    ) -> Rollout:
        """Roll one group out on the next free worker, under the newest version at that moment; see `roll_out`."""

        async def call(member: Member[Any]) -> Rollout:
            version = await self._bring_up_to_date(member)
            named = member.handle.rollout.options(num_returns=3, name=f"rollout of {task.task_id}")
            receipt, group, conditions = named.remote(task, seeds, version, steps, guidance, keep_states)
            return Rollout(await receipt, group, conditions)

        return await self.run(f"the rollout of {task.task_id}", call)

    async def explore(self, task: EditTask, seeds: RolloutSeeds) -> Rollout:
        """Make a pool for a group to be chosen from, on the next free worker; see `rollout_workers.rollout.explore`."""

        async def call(member: Member[Any]) -> Rollout:
            version = await self._bring_up_to_date(member)
            named = member.handle.explore.options(num_returns=2, name=f"exploration of {task.task_id}")
            receipt, pool = named.remote(task, seeds, version)
            return Rollout(await receipt, pool, None)

        return await self.run(f"the exploration of {task.task_id}", call)

    async def _start_actor(self, name: str) -> Any:
        actor = RolloutActor.options(**self._rollout.actor_options(self._namespace, name)).remote(
            name, self._editor, self._rollout, self._seed
        )
        described = await or_undo(actor.describe.remote(), lambda: ray.kill(actor))
        self._hosts[name] = described["node"]
        self._turns.add(described["node"], described["cores"], self._rollout.threads)
        if self._version is not None:
            await or_undo(self._bring_up_to_date(Member(name, actor)), lambda: ray.kill(actor))
        return actor

    async def _bring_up_to_date(self, member: Member[Any]) -> PolicyVersion:
        if self._version is None:
            raise PoolError("no policy version was published yet: adopt() one before rollouts")
        version, published = self._version, self._published
        if self._held.get(member.name) != version:
            async with self._turns.taken(self._hosts[member.name]):
                self.proofs[member.name] = await member.handle.adopt.remote(version, self._weights)
            self._held[member.name] = version
            self.sync_seconds[member.name] = time.monotonic() - published
        return version
