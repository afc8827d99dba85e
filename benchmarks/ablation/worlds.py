"""Worlds in which the arms are compared: what the base model damages, what the judge sees, and how sure it is.

Three switches, two positions each. Held-out figures are the ground truth's over the whole image in every world: a world
changes what is learned from, and what is there to learn.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rc_grpo.messages import EditTask
from rc_grpo.seeds import derive, normal
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import ARTIFACTS, FULL_MARKS, NATURALNESS, OVER_EDITING, SUCCESS, Verdict

NOISE = 0.15
"""Standard deviation of a noisy judge's rewards, of 0..1: about that of the true rewards within a group."""


@dataclass(frozen=True)
class World:
    """One of eight.

    Attributes:
        damages: the base model damages backgrounds: it begins with the LoRA of `benchmarks.ablation damage`.
        region: the judge sees the region alone: what was changed elsewhere costs nothing.
        noisy: the judge's rewards are off by `NOISE`, another draw for every image.
    """

    damages: bool = False
    region: bool = False
    noisy: bool = False

    @classmethod
    def named(cls, name: str) -> "World":
        """Return the world whose switches a name lists, such as ``damages+noisy``; ``plain`` has none.

        Raises:
            ValueError: there is no such switch.
        """
        switches = set() if name == "plain" else set(name.split("+"))
        if unknown := switches - set(cls.__dataclass_fields__):
            raise ValueError(f"a world has no switch {sorted(unknown)}: combine damages, region and noisy, or plain")
        return cls(**dict.fromkeys(switches, True))


class WorldJudge:
    """The ground truth as a world's judge.

    Args:
        world: whose.
    """

    name = GroundTruthJudge.name

    def __init__(self, world: World) -> None:
        self._world = world
        self._truth = GroundTruthJudge()

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``; the parts are the ground truth's, the reward is the world's."""
        verdicts = self._truth.score(task, images)
        return [self._seen(task, image, verdict) for image, verdict in zip(images, verdicts, strict=True)]

    def _seen(self, task: EditTask, image: NDArray[np.uint8], verdict: Verdict) -> Verdict:
        reward = verdict.reward
        if self._world.region:
            quality = min(verdict.subscores[NATURALNESS], verdict.subscores[ARTIFACTS])
            reward = math.sqrt(verdict.subscores[SUCCESS] * quality) / FULL_MARKS
        if self._world.noisy:
            # A judge that is asked again about the same image says the same.
            digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes()).hexdigest()
            reward += NOISE * float(normal(derive("noisy-judge", task.task_id, digest), 1))
        return Verdict(reward, verdict.subscores)


class Vandal:
    """A judge that wants the edit made and the rest destroyed: a base model trained by it damages backgrounds."""

    name = GroundTruthJudge.name

    def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]``."""
        verdicts = GroundTruthJudge().score(task, images)
        return [
            Verdict(
                math.sqrt(verdict.subscores[SUCCESS] * (FULL_MARKS - verdict.subscores[OVER_EDITING])) / FULL_MARKS,
                verdict.subscores,
            )
            for verdict in verdicts
        ]
