"""Ray actors that answer like the real ones and compute nothing, and the loop that drives them.

Apart from the pools that use them, because an actor's process imports this file and should import little else.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from learner.statistics import Figures
from rc_grpo.messages import (
    CandidateGroup,
    Conditions,
    EditTask,
    GroupScores,
    PolicyVersion,
    RolloutReceipt,
    RolloutSeeds,
    VersionProof,
)
from rc_grpo.seeds import derive

if TYPE_CHECKING:
    from deploy.batches.collector import Collector
    from learner.work import GroupWork

PAGE_OF_FLOATS = 4096 // 4


def stub_tasks(count: int, source_bytes: int = 0) -> list[EditTask]:
    """Return tasks that nobody will look into, each with a source image of so many bytes."""
    source = np.random.default_rng(derive("stub source")).bytes(source_bytes)
    return [EditTask(f"task-{number}", "other", source, "", b"") for number in range(count)]


def some_scores(task_id: str, group_size: int, latency: float = 0.0) -> GroupScores:
    """Return scores that differ within a group, so that a learner does not skip it; a function of the task."""
    draws = random.Random(derive("stub scores", task_id))
    rewards = np.array([draws.random() for _ in range(group_size)])
    return GroupScores(task_id, "stub", rewards, np.full(group_size, np.nan), latency=latency)


async def train(
    collector: "Collector", rollouts: Any, judges: Any, learner: Any, updates: int, clock: Callable[[], Any]
) -> list[Any]:
    """Run what `deploy.loop.train` repeats, without records, checkpoints and evaluations.

    Returns:
        What the clock showed at the end of each update.
    """
    await rollouts.adopt(*await learner.publish())
    marks = []
    async for batch in collector.batches(rollouts, judges, learner, range(updates)):
        await learner.update(batch)
        await rollouts.adopt(*await learner.publish())
        marks.append(clock())
    return marks


def touch(batch: pa.RecordBatch) -> float:
    """Read a number of every page of a group's states, where they lie."""
    states = CandidateGroup.from_arrow(batch).states
    assert states is not None
    return float(states.reshape(-1)[::PAGE_OF_FLOATS].sum())


@ray.remote
class StubWorker:
    """Answers like `RolloutActor`, with the same arrays again and again.

    Args:
        name: of the actor.
        states: shape of a trajectory ``[G, T+1, N, C]``.
        image_side: pixels.
    """

    def __init__(self, name: str, states: tuple[int, int, int, int], image_side: int) -> None:
        size, points, tokens, _ = states
        numbers = np.random.default_rng(derive(name))
        group = CandidateGroup(
            task_id="",
            seeds=RolloutSeeds(0),
            policy=PolicyVersion(0, "", 0, True),
            sigmas=np.linspace(1.0, 0.0, points),
            token_mask=np.ones(tokens, dtype=np.bool_),
            images=numbers.integers(0, 256, (size, image_side, image_side, 3), dtype=np.uint8),
            background_drift=np.zeros(size, dtype=np.float32),
            states=numbers.standard_normal(states, dtype=np.float32),
        )
        self._name = name
        self._batch = group.to_arrow()
        self._conditions = Conditions(image_side, image_side, {}, np.ones(1, dtype=np.bool_))

    def ready(self) -> None:
        """Return when it has been made."""

    def adopt(self, version: PolicyVersion, _: NDArray[np.uint8]) -> VersionProof:
        return VersionProof(self._name, version.number, version.modules, version.digest, 0.0)

    def rollout(
        self, task: EditTask, seeds: RolloutSeeds, version: PolicyVersion, *_: Any
    ) -> tuple[RolloutReceipt, pa.RecordBatch, Conditions]:
        receipt = RolloutReceipt(task.task_id, version, self._name, (0.0,) * seeds.group_size, 0.0, {})
        return receipt, self._batch, self._conditions


@ray.remote
class StubJudge:
    """Answers like `RewardActor`, having read the states where they lie."""

    async def ready(self) -> None:
        """Return when it has been made."""

    async def score(self, task: EditTask, group: pa.RecordBatch) -> GroupScores:
        touch(group)
        return some_scores(task.task_id, group.num_rows)


@ray.remote
class StubRank:
    """Answers like `LearnerActor`, having read the states where they lie."""

    def __init__(self) -> None:
        self._updates = 0

    def publish(self) -> tuple[PolicyVersion, NDArray[np.uint8]]:
        version = PolicyVersion(self._updates, f"{self._updates:064d}", 1, self._updates == 0)
        return version, np.zeros(1, dtype=np.uint8)

    def update(self, work: "list[GroupWork]", _: int) -> Figures:
        self._updates += 1
        return Figures(means={"read": sum(touch(ray.get(item.group)) for item in work)})
