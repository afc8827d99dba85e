"""The panel: all judges of a run, each with its own pool of actors, asked about every group at the same time."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from rc_grpo.config import RewardConfig
from rc_grpo.messages import EditTask, GroupScores
from reward_service.pool import RewardPool


class JudgePanel:
    """The run's judges.

    Args:
        config: judges by name.
        namespace: Ray namespace of their actors.
    """

    def __init__(self, config: RewardConfig, namespace: str) -> None:
        self.pools = {name: RewardPool(name, judge, namespace, config.prune) for name, judge in config.judges.items()}
        self._weights = config.weights
        self._relative = {name for name, judge in config.judges.items() if judge.relative}
        self._metrics_deadline_s = config.metrics_deadline_s

    async def open(self) -> None:
        """Start all pools."""
        await asyncio.gather(*(pool.open() for pool in self.pools.values()))

    async def drain(self) -> None:
        """Let the judges end their servers in their own time."""
        await asyncio.gather(*(pool.drain() for pool in self.pools.values()))

    def close(self) -> None:
        """Stop all actors."""
        for pool in self.pools.values():
            pool.close()

    async def score(self, task: EditTask, group: Any) -> GroupScores:
        """Have every judge score one group; of a group of one, those that compare candidates have nothing to say.

        Args:
            task: what was to be edited.
            group: reference to the group's record batch.
        """
        names = list(self.pools)
        scores = await asyncio.gather(*(self.pools[name].score(task, group) for name in names))
        return merged(_meaningful(dict(zip(names, scores, strict=True)), self._relative), self._weights)

    @property
    def summaries(self) -> dict[str, dict[str, float]]:
        """The statistics of each pool by its role."""
        return {pool.role: pool.summary for pool in self.pools.values()}

    async def server_metrics(self) -> dict[str, float]:
        """Return what the judges' servers say of themselves."""
        servers = await asyncio.gather(*(pool.server_metrics(self._metrics_deadline_s) for pool in self.pools.values()))
        return {
            f"judge_server/{name}/{key}": float(value)
            for name, server in zip(self.pools, servers, strict=True)
            for key, value in server.items()
        }


def _meaningful(scores: Mapping[str, GroupScores], relative: Collection[str]) -> Mapping[str, GroupScores]:
    alone = {name: part for name, part in scores.items() if name not in relative or len(part.task_reward) > 1}
    return alone or scores


def merged(scores: Mapping[str, GroupScores], weights: Mapping[str, float]) -> GroupScores:
    """Return what several judges made of one group as one message.

    Its task reward is the weighted mean of the judges that count (weight above 0; all alike where none does, as in an
    evaluation whose counting judges only compare), NaN where one of them failed. It is for people; the learner
    standardises each judge's reward on its own.
    """
    if len(scores) == 1:
        return next(iter(scores.values()))
    parts = list(scores.values())
    counted = {name: weights[name] for name in scores if weights[name] > 0} or dict.fromkeys(scores, 1.0)
    rewards = np.stack([scores[name].task_reward for name in counted])
    mean = np.average(rewards, axis=0, weights=list(counted.values()))
    return GroupScores(
        task_id=parts[0].task_id,
        judge="+".join(scores),
        task_reward=mean,
        acd_reward=parts[0].acd_reward,
        rewards={name: part.task_reward for name, part in scores.items()},
        subscores={name: values for part in parts for name, values in part.subscores.items()},
        reasons=tuple(_said(scores, index) for index in range(len(mean))),
        attempts=max(part.attempts for part in parts),
        latency=max(part.latency for part in parts),
        pruned=parts[0].pruned,
    )


def _said(scores: Mapping[str, GroupScores], candidate: int) -> str | None:
    said = [f"{name}: {part.reasons[candidate]}" for name, part in scores.items() if part.reasons[candidate]]
    return " || ".join(said) or None
