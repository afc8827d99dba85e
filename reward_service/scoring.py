"""Scoring a group: one judge's verdicts as a message; a failure is NaN with a reason, never a reward."""

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rc_grpo.editor.geometry import binary_mask, resize_mask
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores
from rc_grpo.storable import one_line
from reward_service.judge import Judge, JudgeSetupError, JudgeUnavailableError, Verdict

logger = logging.getLogger(__name__)
_LOGGED_CHARACTERS = 1000
_PRUNED = Verdict.failure("not asked: it looks like the reference")


async def score_group(
    judge: Judge, task: EditTask, group: CandidateGroup, *, name: str | None = None, prune: int | None = None
) -> GroupScores:
    """Score a group; whatever the judge raises becomes NaN for every candidate, with the error as the reason.

    Args:
        judge: who scores.
        task: what was to be edited.
        group: its candidates.
        name: under which its reward is logged, that of the configuration; the judge's own where there is none.
        prune: the judge is not asked about candidates that `indistinguishable` names at so many levels; none is off.

    Raises:
        JudgeUnavailableError: the judge's server does not answer; the group can be scored elsewhere.
        JudgeSetupError: no group can be scored with this configuration.
    """
    name, started = name or judge.name, time.perf_counter()
    pruned = () if prune is None else indistinguishable(task, group.images, prune)
    asked = [index for index in range(group.size) if index not in pruned]
    verdicts = [_PRUNED] * group.size
    images = group.images if not pruned else group.images[asked]
    for index, verdict in zip(asked, await verdicts_of(judge, task, images, name), strict=True):
        verdicts[index] = verdict
    reward = np.array([verdict.reward for verdict in verdicts])
    parts = sorted({part for verdict in verdicts for part in verdict.subscores})
    return GroupScores(
        task_id=task.task_id,
        judge=name,
        task_reward=reward,
        acd_reward=group.acd_reward,
        subscores={
            f"{name}.{part}": np.array([verdict.subscores.get(part, np.nan) for verdict in verdicts]) for part in parts
        },
        reasons=tuple(_reason(verdict, name) for verdict in verdicts),
        attempts=max(verdict.attempts for verdict in verdicts),
        latency=time.perf_counter() - started,
        pruned=pruned,
    )


def indistinguishable(task: EditTask, images: NDArray[np.uint8], levels: int) -> tuple[int, ...]:
    """Return the candidates whose edit region looks like the reference's.

    Args:
        task: whose mask is the region.
        images: ``[G, H, W, 3]``, the reference first.
        levels: of 255, by which no channel of a pixel in the region may differ.

    Returns:
        Indices in rising order, never the reference's 0.
    """
    inside = resize_mask(binary_mask(task.mask), *images.shape[1:3]) > 0
    region = images[:, inside].astype(np.int16)
    changes = np.abs(region - region[:1]).max(axis=(1, 2), initial=0)
    return tuple((np.flatnonzero(changes[1:] <= levels) + 1).tolist()) if inside.any() else ()


async def verdicts_of(judge: Judge, task: EditTask, images: NDArray[np.uint8], name: str) -> list[Verdict]:
    """Have a judge score edits ``[G, H, W, 3]``; what it raises, and what it says that is no score, is a failure.

    Args:
        judge: who scores.
        task: what was to be edited.
        images: its candidates.
        name: of the judge, for reasons.

    Raises:
        JudgeUnavailableError, JudgeSetupError: as of `score_group`.
    """
    try:
        said = list(await _asked(judge, task, images))
        if len(said) != len(images):
            raise ValueError(f"judge {name} returned {len(said)} verdicts for {len(images)} candidates")
    except (JudgeUnavailableError, JudgeSetupError):
        raise
    except Exception as error:  # noqa: BLE001 - a judge is a plug-in; its every failure is a failed score, and is said
        logger.warning("scoring %s failed: %s", task.task_id, one_line(repr(error), _LOGGED_CHARACTERS))
        said = [Verdict.failure(f"{type(error).__name__}: {error}")] * len(images)
    return [_counted(verdict, name) for verdict in said]


def _counted(verdict: Any, name: str) -> Verdict:
    """Return a verdict whose numbers are numbers; of what is none, the failure that it is."""
    if not isinstance(verdict, Verdict):
        return Verdict.failure(f"judge {name} returned {one_line(repr(verdict), 100)} and no Verdict")
    try:
        reward = float(verdict.reward)
        parts = {str(part): float(value) for part, value in verdict.subscores.items()}
    except (TypeError, ValueError, AttributeError) as error:
        return Verdict.failure(f"judge {name} returned a mark that is no number ({error})")
    if math.isinf(reward):
        return replace(Verdict.failure(f"judge {name} returned the reward {reward}"), subscores=parts)
    return replace(verdict, reward=reward, subscores=parts)


def _reason(verdict: Verdict, judge: str) -> str | None:
    if verdict.reason is None and math.isnan(verdict.reward):
        return f"judge {judge} gave neither a reward nor a reason"
    return verdict.reason


async def _asked(judge: Judge, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
    if inspect.iscoroutinefunction(judge.score):
        verdicts: Sequence[Verdict] = await judge.score(task, images)
        return verdicts
    return await asyncio.to_thread(judge.score, task, images)  # type: ignore[arg-type]
