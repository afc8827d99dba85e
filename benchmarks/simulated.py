"""The three services for virtual time: the real pools, over actors that wait as long as a call was measured to take.

Measured on one H200, or reckoned where nothing was measured; then the docstring says from what.
"""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayActorError

from benchmarks.stubs import some_scores
from rc_grpo.config import EditorConfig, EditScoreConfig, RolloutConfig
from rc_grpo.messages import (
    EditTask,
    GroupScores,
    PolicyVersion,
    RolloutReceipt,
    RolloutSeeds,
    ScoredGroup,
    VersionProof,
)
from rc_grpo.seeds import derive
from reward_service.pool import RewardPool
from rollout_workers.pool import RolloutPool

SEED, GROUP, STEPS, ANCHORS = 0, 12, 8, 4


@dataclass(frozen=True)
class Latency:
    """How long calls of one kind take.

    Attributes:
        median: seconds.
        sigma: of the lognormal jitter.
        tail_share: share of the calls that take 2 to 4 times as long.
    """

    median: float
    sigma: float
    tail_share: float = 0.03

    def draw(self, *path: int | str) -> float:
        """Return the seconds of the call of this name."""
        draws = random.Random(derive(*path))
        slow = draws.uniform(2.0, 4.0) if draws.random() < self.tail_share else 1.0
        return self.median * slow * draws.lognormvariate(0.0, self.sigma)


FORWARD_OF_8_S, ANCHOR_STEP_S, JUDGED_IMAGES_A_SECOND = 0.549, 0.946, 8.4
"""Measured on an H200, 512x512: compiled forward at batch 8, forward and backward at batch 4, vLLM at 64 in flight."""
ROLLOUT = Latency(STEPS * FORWARD_OF_8_S * GROUP / 8, sigma=0.08)
SCORINGS_AT_ONCE: int = EditScoreConfig.model_fields["groups_in_flight"].default
SCORING = Latency(SCORINGS_AT_ONCE * GROUP / JUDGED_IMAGES_A_SECOND, sigma=0.2)
"""Of a group in a full judge; that a group is faster in one that is not full is left out."""
RANK_SIGMA = 0.03
HICCUP = Latency(1.0, sigma=0.0)
"""The factor on a whole update: the tail of whatever all ranks wait for."""
ADOPTION = Latency(0.7, sigma=0.2)
"""Reckoned, not measured: 0.2 GB of LoRA over the network, two SHA-256 of it, two canary forwards at batch 1."""
PUBLISH_S = 0.5
"""Reckoned, not measured: 0.2 GB of LoRA off the device, serialised, hashed, put into the object store."""
REPLACEMENT_S = 180.0
"""Reckoned, not measured: a pod, 24 GB of weights, a compile or a start of vLLM."""


class SimulatedRollouts(RolloutPool):
    """The real rollout pool over actors that wait; see `_Mortal` for ``mean_life_s``."""

    def __init__(self, workers: int, mean_life_s: float | None) -> None:
        super().__init__(EditorConfig(), RolloutConfig(workers=workers), SEED, "simulation")
        self._mean_life_s = mean_life_s
        self._stop = lambda _: None

    async def _start_actor(self, name: str) -> Any:
        if self.statistics.started > self.size:
            await asyncio.sleep(REPLACEMENT_S)
        return _Worker(name, self._mean_life_s)


class SimulatedJudges(RewardPool):
    """The real reward pool over actors that wait; see `_Mortal` for ``mean_life_s``."""

    def __init__(self, workers: int, mean_life_s: float | None) -> None:
        config = EditScoreConfig(kind="editscore", model="simulated", workers=workers)
        super().__init__("stub", config, "simulation")
        self._mean_life_s = mean_life_s
        self._stop = lambda _: None

    async def _start_actor(self, name: str) -> Any:
        if self.statistics.started > self.size:
            await asyncio.sleep(REPLACEMENT_S)
        return _Judge(name, self._mean_life_s)


class SimulatedLearner:
    """Ranks that wait: as long as the slowest of them takes for its share of the groups."""

    def __init__(self, ranks: int) -> None:
        self.learned: list[tuple[Sequence[ScoredGroup], float]] = []
        """For each update the batch, and the seconds of the update."""
        self._ranks = ranks

    @property
    def version(self) -> PolicyVersion:
        number = len(self.learned)
        return PolicyVersion(number, f"{number:064d}", 266, number == 0)

    async def publish(self) -> tuple[PolicyVersion, None]:
        await asyncio.sleep(PUBLISH_S)
        return self.version, None

    async def update(self, batch: Sequence[ScoredGroup]) -> None:
        jitter = random.Random(derive(SEED, "ranks", self.version.number))
        shares = [0.0] * self._ranks
        for index, scored in enumerate(batch):
            seconds = STEPS * ANCHOR_STEP_S
            if scored.receipt.policy != self.version:
                # The anchors' path under today's weights has to be integrated first.
                seconds += STEPS * FORWARD_OF_8_S * ANCHORS / 8
            shares[index % self._ranks] += seconds * jitter.lognormvariate(0.0, RANK_SIGMA)
        seconds = max(shares) * HICCUP.draw(SEED, "update", self.version.number)
        await asyncio.sleep(seconds)
        self.learned.append((batch, seconds))


class _Remote:
    """A function with the face of a Ray actor's method."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self.remote = method

    def options(self, **_: Any) -> "_Remote":
        return self


class _Mortal:
    """An actor whose work is waiting, and that may die meanwhile.

    Args:
        name: of the actor; with the count of its calls it seeds their durations.
        mean_life_s: mean of its exponential life, seconds; None for one that does not die.
    """

    def __init__(self, name: str, mean_life_s: float | None) -> None:
        self.name = name
        self._calls = 0
        life = math.inf
        if mean_life_s is not None:
            life = random.Random(derive(SEED, "life", name)).expovariate(1.0 / mean_life_s)
        self._dies_at = asyncio.get_running_loop().time() + life

    async def work(self, latency: Latency) -> float:
        """Wait for as long as a call takes, and return the seconds.

        Raises:
            RayActorError: at the moment of its death, or at once if that has passed.
        """
        self._calls += 1
        seconds = latency.draw(SEED, self.name, self._calls)
        left = self._dies_at - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(seconds, left)))
        if left < seconds:
            raise RayActorError
        return seconds


class _Worker(_Mortal):
    def __init__(self, name: str, mean_life_s: float | None) -> None:
        super().__init__(name, mean_life_s)
        self.adopt = _Remote(self._adopt)
        self.rollout = _Remote(self._rollout)

    async def _adopt(self, version: PolicyVersion, _: Any) -> VersionProof:
        await self.work(ADOPTION)
        return VersionProof(self.name, version.number, version.modules, version.digest, 0.0)

    def _rollout(self, task: EditTask, _: RolloutSeeds, version: PolicyVersion, *__: Any) -> tuple[Any, None, None]:
        async def receipt() -> RolloutReceipt:
            seconds = await self.work(ROLLOUT)
            return RolloutReceipt(task.task_id, version, self.name, (), 0.0, {"rollout": seconds})

        return receipt(), None, None


class _Judge(_Mortal):
    def __init__(self, name: str, mean_life_s: float | None) -> None:
        super().__init__(name, mean_life_s)
        self.score = _Remote(self._score)

    async def _score(self, task: EditTask, _: Any) -> GroupScores:
        return some_scores(task.task_id, GROUP, latency=await self.work(SCORING))
