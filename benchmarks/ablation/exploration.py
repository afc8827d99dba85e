"""What perturbation and attention do before any training: groups of the untrained editor, rolled out and scored.

For the spread of rewards and of the background against ``alpha_base``, and for the attention density of good and bad
candidates by layer and step, which is how the paper chooses layers.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.sequential import JUDGE, POLICY
from deploy.configs import load_config
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.messages import CandidateGroup, GroupScores, RolloutSeeds
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import SUCCESS
from reward_service.scoring import score_group
from rollout_workers.rollout import PreparedTask, prepare, roll_out

ALPHAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LAYERS = tuple(range(6))


def groups(config: RunConfig, tasks: int) -> Iterator[tuple[CandidateGroup, GroupScores, PreparedTask]]:
    """Yield scored groups of the untrained policy, of the first held-out tasks."""
    editor, judge = load_rollout_editor(config.editor, config.rollout, config.seed), GroundTruthJudge()
    assert config.data.heldout is not None
    for task in load_tasks(config.data.heldout, purpose="evaluate")[:tasks]:
        seeds = RolloutSeeds.for_group(config.seed, 0, task.task_id, config.rollout.group_size)
        prepared = prepare(editor, task, config.rollout)
        group = roll_out(editor, task.task_id, prepared, seeds, POLICY, config.rollout)
        yield group, asyncio.run(score_group(judge, task, group)), prepared


def spread(images: NDArray[np.uint8], outside: NDArray[np.float32]) -> float:
    """Return how far the backgrounds of candidates ``[G, H, W, 3]`` are from being one, RMS in 0..1."""
    pixels = images.astype(np.float64) / 255
    square = np.square(pixels - pixels.mean(axis=0)).mean(axis=(0, -1))
    return float(np.sqrt(np.average(square, weights=outside)))


def alpha_base_curve(tasks: int, overrides: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return what each group shows by ``alpha_base``, and for perturbation everywhere.

    ``std`` is of the rewards within the group, ``drift`` the candidates' mean RMS difference to the source outside the
    mask, and ``spread`` the RMS difference of the candidates to their own mean there.
    """
    torch.set_num_threads(1)
    arms = {f"{alpha:g}": [f"rollout.alpha_base={alpha}"] for alpha in ALPHAS} | {
        "global": ["rollout.exploration=global"]
    }
    curve: dict[str, dict[str, list[float]]] = {}
    for name, own in arms.items():
        found = list(groups(load_config("pocket", (*own, *overrides)), tasks))
        curve[name] = {
            "std": [float(np.nanstd(scores.task_reward)) for _, scores, _ in found],
            "drift": [float(group.background_drift.mean()) for group, _, _ in found],
            "spread": [spread(group.images, prepared.outside) for group, _, prepared in found],
        }
    return curve


def attention_of_good_and_bad(tasks: int, overrides: Sequence[str]) -> dict[str, Any]:
    """Return mean densities ``[layers][T]`` of each group's best and worst candidate by success, and their effect size.

    The effect size is the mean of the paired differences over their standard deviation.
    """
    config = load_config("pocket", (f"rollout.acd.layers={list(LAYERS)}", *overrides))
    best, worst = [], []
    for group, scores, _ in groups(config, tasks):
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
