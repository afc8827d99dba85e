"""What the loop itself costs: groups a second, and GB of trajectories a second, on a local Ray cluster of stub actors.

Ledger, collector, pools, the learner's driver side and Ray are the real ones; the actors compute nothing
(`benchmarks.stubs`). With tiny groups the driver is what is measured, with groups of FLUX.1 Kontext's size the way
through the object store: written once by the rollout actor, read in place by the judge and by the rank.
"""

import asyncio
import math
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.stubs import StubJudge, StubRank, StubWorker, stub_tasks, train
from deploy.batches.collector import Collector
from deploy.batches.ledger import Ledger
from deploy.batches.lessons import Lessons
from learner.group import LearnerGroup
from learner.work import RunShape
from rc_grpo.config import (
    EditorConfig,
    GroundTruthConfig,
    LearnerConfig,
    ObjectiveConfig,
    RewardConfig,
    RolloutConfig,
)
from reward_service.panel import JudgePanel
from reward_service.pool import RewardPool
from rollout_workers.pool import RolloutPool

SEED, STALENESS, TASKS, HOME, JUDGE = 0, 2, 256, "loop-overhead", "stub"
STORE_BYTES = 4 * 10**9


@dataclass(frozen=True)
class Load:
    """What is sent through the loop.

    Attributes:
        states: shape of a group's trajectories ``[G, T+1, N, C]``, float32.
        image_side: pixels.
        source_bytes: of a task's source image.
        workers: rollout actors; as many scorings go on at a time.
        groups: of an update.
        warm_up: updates before the clock starts; in them the store's memory is touched for the first time.
        updates: that are measured.
    """

    states: tuple[int, int, int, int]
    image_side: int
    source_bytes: int
    workers: int
    groups: int
    warm_up: int
    updates: int

    @property
    def gigabytes(self) -> float:
        """Of one group's trajectories; images and source, which go along, are not counted."""
        return math.prod(self.states) * 4 / 1e9


METADATA = Load((12, 9, 4, 4), image_side=8, source_bytes=0, workers=4, groups=24, warm_up=10, updates=200)
TRAJECTORIES = Load(
    (12, 9, 1024, 64), image_side=512, source_bytes=400_000, workers=2, groups=8, warm_up=6, updates=100
)


LOADS = {"metadata": METADATA, "trajectories": TRAJECTORIES}


@dataclass(frozen=True)
class Pace:
    """What was measured of a load.

    Attributes:
        groups_per_second: rolled out, scored and learned from.
        gigabytes_per_second: of trajectories.
        driver_ms_per_group: CPU time of the driver's process, all its threads.
        dropped: groups dropped for their age.
    """

    groups_per_second: float
    gigabytes_per_second: float
    driver_ms_per_group: float
    dropped: int


class StubRollouts(RolloutPool):
    """The real pool over stubs."""

    def __init__(self, load: Load) -> None:
        super().__init__(EditorConfig(), RolloutConfig(workers=load.workers), SEED, HOME)
        self._load = load

    async def _start_actor(self, name: str) -> Any:
        actor = StubWorker.options(num_cpus=0).remote(name, self._load.states, self._load.image_side)
        await actor.ready.remote()
        return actor


class StubJudges(RewardPool):
    """The real pool over one stub."""

    async def _start_actor(self, name: str) -> Any:
        actor = StubJudge.options(num_cpus=0, max_concurrency=self._reward.groups_in_flight).remote()
        await actor.ready.remote()
        return actor


class StubLearner(LearnerGroup):
    """The real driver side of the learner over one stub rank."""

    async def open(self) -> None:
        self._ranks = [StubRank.options(num_cpus=0).remote()]


def both_clocks() -> tuple[float, float]:
    """Return seconds that passed, and seconds of CPU that this process used."""
    return time.perf_counter(), time.process_time()


async def measure(load: Load) -> Pace:
    """Send a load through the loop."""
    config, updates = RolloutConfig(), load.warm_up + load.updates
    reward = RewardConfig(judges={JUDGE: GroundTruthConfig(groups_in_flight=load.workers)})
    rollouts, judges = StubRollouts(load), JudgePanel(reward, HOME)
    judges.pools[JUDGE] = StubJudges(JUDGE, reward.judges[JUDGE], HOME)
    shape = RunShape(SEED, config.solver, config.steps, updates, STALENESS, reward.weights)
    learner = StubLearner(EditorConfig(), LearnerConfig(), ObjectiveConfig(acd_weight=0.0), shape, HOME)
    ledger = Ledger(TASKS, updates, load.groups, STALENESS, SEED)
    tasks = stub_tasks(TASKS, load.source_bytes)
    lessons = Lessons(reward.weights, ObjectiveConfig(acd_weight=0.0))
    collector = Collector(ledger, tasks, config.group_size, config.attempts, lessons, asyncio.Event())
    try:
        await asyncio.gather(rollouts.open(), judges.open(), learner.open())
        marks = await train(collector, rollouts, judges, learner, updates, both_clocks)
    finally:
        for pool in (rollouts, judges, learner):
            pool.close()
    seconds, driver_seconds = np.subtract(marks[-1], marks[load.warm_up - 1]).tolist()
    groups = load.updates * load.groups
    return Pace(
        groups_per_second=groups / seconds,
        gigabytes_per_second=groups * load.gigabytes / seconds,
        driver_ms_per_group=driver_seconds / groups * 1e3,
        dropped=ledger.dropped["stale"],
    )


def main() -> None:
    """Measure both loads and write ``results/loop_overhead.json``."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", include_dashboard=False, object_store_memory=STORE_BYTES)
    try:
        paces = {name: asyncio.run(measure(load)) for name, load in LOADS.items()}
    finally:
        ray.shutdown()
    metadata, trajectories = paces["metadata"], paces["trajectories"]
    setting = f"one judge, one rank; max_staleness {STALENESS}; everything on {os.cpu_count()} cores"
    figures = {
        "groups_per_second": Figure(
            metadata.groups_per_second,
            "groups/s",
            "at least 200",
            f"tiny groups, {METADATA.groups} an update; {METADATA.workers} rollout actors, {setting}",
        ),
        "driver_ms_per_group": Figure(
            metadata.driver_ms_per_group, "ms of CPU", None, "all threads of the driver, tiny groups"
        ),
        "gigabytes_per_second": Figure(
            trajectories.gigabytes_per_second,
            "GB/s",
            "at least 2",
            f"float32 states {list(TRAJECTORIES.states)} a group, written once, read twice, counted once; images "
            f"({TRAJECTORIES.image_side} pixels) go along uncounted; {TRAJECTORIES.workers} rollout actors, {setting}",
        ),
    }
    detail = {name: {"load": asdict(LOADS[name]), "pace": asdict(pace)} for name, pace in paces.items()}
    print(results.write("loop_overhead", figures, detail).read_text())


if __name__ == "__main__":
    main()
