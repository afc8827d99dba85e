"""What the loop itself costs: groups a second, and GB of trajectories a second, on a local Ray cluster of stub actors.

Ledger, collector, pools and the learner's driver side are the real ones, and Ray is. The actors compute nothing: a rollout
actor hands out the same arrays again and again, a judge and a rank read a number of each page of the states. With tiny
groups the driver is what is measured; with groups of FLUX.1 Kontext's size, the way through the object store.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.stubs import some_scores, train
from deploy.collector import Collector
from deploy.ledger import Ledger
from learner.group import LearnerGroup
from learner.work import GroupWork, RunShape
from rc_grpo.config import (
    EditorConfig,
    GroundTruthConfig,
    LearnerConfig,
    ObjectiveConfig,
    Resources,
    RewardConfig,
    RolloutConfig,
)
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
from reward_service.panel import JudgePanel
from reward_service.pool import RewardPool
from rollout_workers.pool import RolloutPool

SEED, STEPS, STALENESS, TASKS = 0, 8, 2, 256
PAGE_OF_FLOATS = 4096 // 4
JUDGE = "stub"


@dataclass(frozen=True)
class Load:
    """What is sent through the loop.

    Attributes:
        tokens: N of a trajectory.
        channels: C of a trajectory.
        image_side: pixels.
        task_bytes: of a task's source image.
        workers: rollout actors; as many scorings go on at a time.
        groups: of an update.
        warm_up: updates before the clock starts; the object store's memory is touched for the first time in them.
        updates: that are measured.
    """

    tokens: int
    channels: int
    image_side: int
    task_bytes: int
    workers: int
    groups: int
    warm_up: int
    updates: int

    def group(self, size: int) -> CandidateGroup:
        """Return a group of this load; the task and the version are filled in when it is handed out."""
        numbers = np.random.default_rng(SEED)
        return CandidateGroup(
            task_id="",
            seeds=RolloutSeeds(0),
            policy=PolicyVersion(0, "", 0, True),
            sigmas=np.linspace(1.0, 0.0, STEPS + 1),
            token_mask=np.ones(self.tokens, dtype=np.bool_),
            images=numbers.integers(0, 256, (size, self.image_side, self.image_side, 3), dtype=np.uint8),
            background_drift=np.zeros(size, dtype=np.float32),
            states=numbers.standard_normal((size, STEPS + 1, self.tokens, self.channels), dtype=np.float32),
        )


def state_bytes(load: Load, group_size: int) -> int:
    """Return the bytes of one group's trajectories, float32."""
    return group_size * (STEPS + 1) * load.tokens * load.channels * 4


def touch(batch: pa.RecordBatch) -> float:
    """Read a number of every page of a group's states, where they lie."""
    states = CandidateGroup.from_arrow(batch).states
    assert states is not None
    return float(states.reshape(-1)[::PAGE_OF_FLOATS].sum())


@ray.remote
class StubWorker:
    """Answers like `RolloutActor`."""

    def __init__(self, name: str, load: Load, group_size: int) -> None:
        self._name = name
        self._batch = load.group(group_size).to_arrow()
        self._conditions = Conditions(load.image_side, load.image_side, {}, np.ones(1, dtype=np.bool_))

    def adopt(self, version: PolicyVersion, _: NDArray[np.uint8]) -> VersionProof:
        return VersionProof(self._name, version.number, version.modules, version.digest, 0.0)

    def rollout(
        self, task: EditTask, seeds: RolloutSeeds, version: PolicyVersion, *_: Any
    ) -> tuple[RolloutReceipt, pa.RecordBatch, Conditions]:
        drift = (0.0,) * seeds.group_size
        return RolloutReceipt(task.task_id, version, self._name, drift, {}), self._batch, self._conditions


@ray.remote
class StubJudge:
    """Answers like `RewardActor`."""

    async def score(self, task: EditTask, group: pa.RecordBatch) -> GroupScores:
        touch(group)
        return some_scores(task.task_id, group.num_rows)


@ray.remote
class StubRank:
    """Answers like `LearnerActor`."""

    def __init__(self) -> None:
        self._updates = 0

    def publish(self) -> tuple[PolicyVersion, NDArray[np.uint8]]:
        version = PolicyVersion(self._updates, f"{self._updates:064d}", 1, self._updates == 0)
        return version, np.zeros(1, dtype=np.uint8)

    def update(self, work: list[GroupWork], _: int) -> dict[str, float]:
        self._updates += 1
        return {"read": sum(touch(ray.get(item.group)) for item in work)}


class StubRollouts(RolloutPool):
    """The real pool over stubs."""

    def __init__(self, config: RolloutConfig, load: Load) -> None:
        super().__init__(EditorConfig(), config, SEED, "loop-overhead")
        self._load = load

    async def _start_actor(self, name: str) -> Any:
        return StubWorker.options(num_cpus=0).remote(name, self._load, self._rollout.group_size)


class StubJudges(RewardPool):
    """The real pool over one stub."""

    async def _start_actor(self, name: str) -> Any:
        return StubJudge.options(num_cpus=0, max_concurrency=self._reward.groups_in_flight).remote()


class StubLearner(LearnerGroup):
    """The real driver side of the learner over one stub rank."""

    async def open(self) -> None:
        self._ranks = [StubRank.options(num_cpus=0).remote()]


@dataclass(frozen=True)
class Pace:
    """What was measured of a load.

    Attributes:
        groups_per_second: made, scored and learned from.
        gigabytes_per_second: of trajectories; images and tasks go along and are not counted.
        driver_ms_per_group: CPU time of the driver process, all its threads.
        dropped: groups dropped for their age.
    """

    groups_per_second: float
    gigabytes_per_second: float
    driver_ms_per_group: float
    dropped: int


async def measure(load: Load) -> Pace:
    """Send a load through the loop."""
    config = RolloutConfig(workers=load.workers)
    reward = RewardConfig(judges={JUDGE: GroundTruthConfig(groups_in_flight=load.workers)})
    rollouts, judges = StubRollouts(config, load), JudgePanel(reward, "loop-overhead")
    judges.pools[JUDGE] = StubJudges(JUDGE, reward.judges[JUDGE], "loop-overhead")
    updates = load.warm_up + load.updates
    shape = RunShape(SEED, config.solver, STEPS, updates, STALENESS, reward.weights)
    learner = StubLearner(EditorConfig(), LearnerConfig(), ObjectiveConfig(acd_weight=0.0), shape, "loop-overhead")
    source = np.random.default_rng(SEED).bytes(load.task_bytes)
    tasks = [EditTask(f"task-{number}", "other", source, "", b"") for number in range(TASKS)]
    ledger = Ledger(TASKS, updates, load.groups, STALENESS, SEED)
    collector = Collector(ledger, tasks, config.group_size, config.attempts, asyncio.Event())
    await asyncio.gather(rollouts.open(), judges.open(), learner.open())
    try:
        # Both clocks are read at the same moments.
        marks = await train(
            collector, rollouts, judges, learner, updates, lambda: np.array([time.perf_counter(), time.process_time()])
        )
    finally:
        for pool in (rollouts, judges, learner):
            pool.close()
    seconds, driver_seconds = marks[-1] - marks[load.warm_up - 1]
    groups = load.updates * load.groups
    size = state_bytes(load, config.group_size)
    return Pace(groups / seconds, groups * size / seconds / 1e9, driver_seconds / groups * 1e3, ledger.dropped["stale"])
