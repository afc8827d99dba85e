"""What perturbation and attention do before any training: groups of the untrained editor, rolled out and scored.

For the spread of rewards and the background's drift against ``alpha_base``, and for the attention density of good and
bad candidates by layer and step, which is how the paper chooses layers.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from benchmarks.sequential import JUDGE, POLICY
from deploy.configs import load_config
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.editor.kontext import load_rollout_editor
from rc_grpo.messages import CandidateGroup, GroupScores, RolloutSeeds
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import SUCCESS
from reward_service.scoring import score_group
from rollout_workers.rollout import prepare, roll_out

ALPHAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LAYERS = tuple(range(6))


def groups(config: RunConfig, tasks: int) -> Iterator[tuple[CandidateGroup, GroupScores]]:
    """Yield scored groups of the untrained policy, of the first held-out tasks."""
    editor, judge = load_rollout_editor(config.editor, config.rollout, config.seed), GroundTruthJudge()
    assert config.data.heldout is not None
    for task in load_tasks(config.data.heldout, purpose="evaluate")[:tasks]:
        seeds = RolloutSeeds.for_group(config.seed, 0, task.task_id, config.rollout.group_size)
        group = roll_out(editor, task.task_id, prepare(editor, task, config.rollout), seeds, POLICY, config.rollout)
        yield group, asyncio.run(score_group(judge, task, group))


def alpha_base_curve(tasks: int, overrides: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return each group's reward variance and drift by ``alpha_base``, and for perturbation everywhere."""
    torch.set_num_threads(1)
    arms = {f"{alpha:g}": [f"rollout.alpha_base={alpha}"] for alpha in ALPHAS} | {
        "global": ["rollout.exploration=global"]
    }
    curve: dict[str, dict[str, list[float]]] = {}
    for name, own in arms.items():
        found = list(groups(load_config("pocket", (*own, *overrides)), tasks))
        curve[name] = {
            "variance": [float(np.nanvar(scores.task_reward)) for _, scores in found],
            "drift": [float(group.background_drift.mean()) for group, _ in found],
        }
    return curve


def attention_of_good_and_bad(tasks: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Return mean densities ``[layers][T]`` of each group's best and worst candidate by success, and their effect size.

    The effect size is the mean of the paired differences over their standard deviation.
    """
    config = load_config("pocket", (f"rollout.acd.layers={list(LAYERS)}", *overrides))
    best, worst = [], []
    for group, scores in groups(config, tasks):
        success = scores.subscores[f"{JUDGE}.{SUCCESS}"]
        if group.acd is None or np.isnan(success).any():
            continue
        best.append(group.acd[success.argmax()])
        worst.append(group.acd[success.argmin()])
    difference = np.array(best) - np.array(worst)
    return {
        "layers": list(LAYERS),
        "success": np.mean(best, axis=0).tolist(),
        "failure": np.mean(worst, axis=0).tolist(),
        "effect_size": (difference.mean(axis=0) / difference.std(axis=0, ddof=1)).tolist(),
        "groups": len(best),
    }
