"""Runs' folders as the project writes them, with curves that a test chooses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deploy.configs import load_config
from deploy.records.folder import SUMMARY, RunFolder
from deploy.records.metrics import MetricsLog
from rc_grpo.data import write_experience
from rc_grpo.data.log.experience import Level, ScoredCandidates
from rc_grpo.evaluation.gains import HeldOut
from rc_grpo.messages import CandidateGroup, GroupScores, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld

G, LAYERS, STEPS, GROUPS = 4, 3, 5, 3
HELDOUT_TASKS = 40

Course = Callable[[int], float]


def rising(update: int) -> float:
    return 0.5 + 0.004 * update


def write_run(
    folder: Path,
    *,
    updates: int = 24,
    seed: int = 0,
    reward: Course = rising,
    heldout: Course | None = rising,
    watched: Course | None = None,
    every: int = 6,
    level: Level = "images",
    logged: int = 2,
    finished: bool = True,
    overrides: tuple[str, ...] = (),
) -> Path:
    """Write a run whose last ``logged`` updates are in the experience log; held out is asked every so many updates.

    ``watched`` is what a second judge, ``watcher``, says of the held-out edits.
    """
    config = load_config("pocket", [f"name={folder.name}", f"seed={seed}", f"loop.updates={updates}", *overrides])
    files = RunFolder(folder)
    files.path.mkdir(parents=True)
    files.describe(config, {"date": "2026-01-01T00:00:00+00:00", "commit": "0123456789ab-dirty", "machine": "a desk"})
    rng = np.random.default_rng(seed)
    tasks = rng.normal(0, 0.1, HELDOUT_TASKS)
    log = MetricsLog(folder)
    for update in range(updates + 1):
        if update:
            log.write(update, _metrics(reward(update), rng), event="update", version=f"v{update}")
        if update > updates - logged and update:
            rows = [logged_group(update, place, reward(update), rng) for place in range(GROUPS)]
            write_experience(folder / "experience" / f"update-{update:05d}.parquet", rows, level)
        if heldout is not None and update % every == 0:
            measured = heldout(update) + tasks + rng.normal(0, 0.01, HELDOUT_TASKS)
            found = HeldOut(
                version=PolicyVersion(update, "ab" * 32, 28, update == 0),
                reward=measured,
                background_drift=0.05 + rng.normal(0, 0.001, HELDOUT_TASKS),
                subscores={"ground_truth.success": 20 * measured},
                rewards={"ground_truth": measured}
                | (
                    {} if watched is None else {"watcher": watched(update) + tasks + rng.normal(0, 0.01, HELDOUT_TASKS)}
                ),
            )
            log.write(update, found.metrics(), event="evaluation")
            files.keep_evaluation(update, found.as_json([f"task-{index}" for index in range(HELDOUT_TASKS)]))
    log.close()
    if finished:
        (folder / SUMMARY).write_text(json.dumps({"updates": updates, "training_minutes": 3.5}))
    return folder


def _metrics(reward: float, rng: np.random.Generator) -> dict[str, float]:
    noise = rng.normal(0, 0.004, 4)
    return {
        "reward/task_mean": reward + noise[0],
        "reward/task_within_group_std": 0.02 + abs(noise[1]),
        "background_drift/mean": 0.05 + noise[2] / 10,
        "acd/mean": 2 + noise[3],
        "groups_skipped/share": 0.0,
        "update/grad_norm": 0.03 + abs(noise[0]),
        "seconds/update_total": 4.0 + noise[1],
        "seconds/waiting_for_rollouts": 2.0,
        "seconds/waiting_for_scores": 0.1,
        "update/seconds_backward": 1.5,
    }


def logged_group(update: int, place: int, reward: float, rng: np.random.Generator) -> ScoredCandidates:
    task = PocketWorld("train", 50)[update * GROUPS % 40 + place]
    candidates = CandidateGroup(
        task_id=task.task_id,
        seeds=RolloutSeeds(1, tuple(range(2, G + 1))),
        policy=PolicyVersion(update, "cd" * 32, 28, False),
        sigmas=np.linspace(1, 0, STEPS + 1),
        token_mask=np.arange(8) < 3,
        images=rng.integers(0, 256, (G, 32, 32, 3), dtype=np.uint8),
        background_drift=rng.random(G, dtype=np.float32) / 10,
        acd=rng.random((G, LAYERS, STEPS), dtype=np.float32),
        worker="rollout-0",
    )
    scores = GroupScores(
        task.task_id, "ground_truth", reward + 0.1 * place + rng.normal(0, 0.01, G), candidates.acd_reward
    )
    return ScoredCandidates(task, candidates, scores, np.zeros(G), update)
