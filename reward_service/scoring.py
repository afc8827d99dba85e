"""Scoring a group: one judge's verdicts as a message; a failure is NaN with a reason, never a reward."""

import logging
import time

import numpy as np

from rc_grpo.config import RewardConfig
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import Judge, Verdict

logger = logging.getLogger(__name__)


def make_judge(config: RewardConfig) -> Judge:
    """Return the judge that the configuration names."""
    match config.judge:
        case "ground_truth":
            return GroundTruthJudge()


def score_group(judge: Judge, task: EditTask, group: CandidateGroup) -> GroupScores:
    """Score a group; whatever the judge raises becomes NaN for every candidate, with the error as the reason."""
    started = time.perf_counter()
    try:
        verdicts = list(judge.score(task, group.images))
        if len(verdicts) != group.size:
            raise ValueError(f"judge {judge.name} returned {len(verdicts)} verdicts for {group.size} candidates")
    except Exception as error:  # noqa: BLE001 - a judge is a plug-in; its every failure is a failed score, and is said
        logger.warning("scoring %s failed: %r", task.task_id, error)
        verdicts = [Verdict.failure(f"{type(error).__name__}: {error}")] * group.size
    names = sorted({name for verdict in verdicts for name in verdict.subscores})
    return GroupScores(
        task_id=task.task_id,
        judge=judge.name,
        task_reward=np.array([verdict.reward for verdict in verdicts]),
        acd_reward=group.acd_reward,
        subscores={name: np.array([verdict.subscores.get(name, np.nan) for verdict in verdicts]) for name in names},
        reasons=tuple(verdict.reason for verdict in verdicts),
        latency=time.perf_counter() - started,
    )
