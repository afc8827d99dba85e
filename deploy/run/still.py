"""A learner that learns nothing: rollouts and scores of the untrained policy, for the log alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learner.group import UpdateReport
from learner.work import batch_advantages
from rc_grpo.config import ObjectiveConfig
from rc_grpo.messages import PolicyVersion, ScoredGroup
from rc_grpo.waiting import Waits
from rollout_workers.pool import RolloutPool


class StillLearner:
    """Stands where the learner would, at version 0 for ever; the log has the advantages that a learner would have used.

    Args:
        rollouts: whose untrained policy it publishes.
        weights: of each judge by name.
        objective: how rewards would be combined.
    """

    is_open = True

    def __init__(self, rollouts: RolloutPool, weights: Mapping[str, float], objective: ObjectiveConfig) -> None:
        self.waits = Waits()
        self.weights: Any = None
        self._rollouts = rollouts
        self._judge_weights = weights
        self._objective = objective
        self._version: PolicyVersion | None = None

    @property
    def has_published(self) -> bool:
        """There is a version."""
        return self._version is not None

    @property
    def version(self) -> PolicyVersion:
        """Version 0."""
        assert self._version is not None, "the untrained policy was not published yet"
        return self._version

    async def open(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to end."""

    async def publish(self) -> tuple[PolicyVersion, Any]:
        """Return version 0 and a reference to its weights."""
        if self._version is None:
            self._version, self.weights = await self._rollouts.untrained()
        return self._version, self.weights

    async def update(self, batch: Sequence[ScoredGroup]) -> UpdateReport:
        """Work out the advantages."""
        advantages, skipped = batch_advantages([item.scores for item in batch], self._judge_weights, self._objective)
        return UpdateReport(self.version, advantages.numpy(), skipped, {})

    async def export(self, folder: Path, *, average: bool = True) -> None:
        """There is nothing new to write."""

    async def save(self, folder: Path, tag: str) -> None:
        """Write nothing: the checkpoint of a run without a learner holds its manifest alone."""

    async def load(self, folder: Path, tag: str) -> None:
        """Nothing was saved."""
