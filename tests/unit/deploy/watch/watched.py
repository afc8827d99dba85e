"""Runs as their folders hold them while they go on, edits that look like edits, and a driver that does as told."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.records.contact_sheet import contact_sheet, group_row
from deploy.records.folder import RunFolder
from deploy.records.metrics import MetricsLog
from deploy.records.recorder import GROUPS_IN_A_GRID
from deploy.watch.line import NotReachableError
from rc_grpo.data import write_experience
from rc_grpo.data.log.experience import Level, ScoredCandidates
from rc_grpo.images import decode_rgb
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores, PolicyVersion, RolloutSeeds
from rc_grpo.pocket.world import PocketWorld

TOKEN = "a-token-that-nobody-guesses"
SAID = (
    "It was done as asked, and nothing beside it changed.",
    "The change is there, but its edges bleed into the ground around it.",
    "It was done in half.",
    "Nothing was done; the background is noisier than before.",
)
FAILED = "the judge's server closed the connection"
LAYERS, STEPS = 4, 6


def edited(
    task: EditTask,
    update: int,
    rng: np.random.Generator,
    *,
    size: int = 6,
    failed: Sequence[int] = (),
    pruned: Sequence[int] = (),
    said: Sequence[str] = SAID,
) -> ScoredCandidates:
    """Return a group of edits between a task's source and its target, judged by how far they came."""
    assert task.target is not None
    source, target = (decode_rgb(data).astype(np.float64) for data in (task.source, task.target))
    came = np.clip(rng.normal(0.6, 0.3, size), 0, 1)
    images = np.stack([source + share * (target - source) + rng.normal(0, 6, source.shape) for share in came])
    reward = np.where(np.isin(np.arange(size), [*failed, *pruned]), np.nan, 0.2 + 0.7 * came)
    candidates = CandidateGroup(
        task_id=task.task_id,
        seeds=RolloutSeeds(1, tuple(range(2, size + 1))),
        policy=PolicyVersion(update, "cd" * 32, 28, False),
        sigmas=np.linspace(1, 0, STEPS + 1),
        token_mask=np.arange(8) < 3,
        images=np.clip(images, 0, 255).astype(np.uint8),
        background_drift=rng.random(size, dtype=np.float32) / 30,
        acd=rng.random((size, LAYERS, STEPS), dtype=np.float32),
        worker="rollout-0",
    )
    places = np.clip(((1 - came) * len(said)).astype(int), 0, len(said) - 1)
    reasons = [FAILED if index in failed else said[place] for index, place in enumerate(places)]
    judged = {"ground_truth.success": 25 * came, "ground_truth.consistency": 25 - 3 * rng.random(size)}
    scores = GroupScores(
        task.task_id, "ground_truth", reward, rng.random(size), judged, tuple(reasons), pruned=tuple(pruned)
    )
    advantages = (reward - np.nanmean(reward)) / (np.nanstd(reward) or 1.0) if np.isfinite(reward).any() else reward
    return ScoredCandidates(task, candidates, scores, advantages, update)


def log_groups(folder: Path, update: int, *, level: Level = "images", **how: Any) -> list[ScoredCandidates]:
    """Write an update's groups into the log of a run, and a grid of them."""
    rng = np.random.default_rng(update)
    world = PocketWorld("train", 50)
    rows = [edited(world[7 * update % 40 + place], update, rng, **how) for place in range(4)]
    files = RunFolder(folder)
    write_experience(files.experience_file(update), rows, level)
    pairs = [group_row(row.task, row.candidates.images, row.scores) for row in rows]
    files.grid_file(update).parent.mkdir(exist_ok=True)
    contact_sheet(pairs[:GROUPS_IN_A_GRID]).save(files.grid_file(update))
    return rows


def log_update(folder: Path, update: int, reward: float) -> None:
    """Add an update to a run's metrics, as its driver would."""
    log = MetricsLog(folder)
    log.write(update, {"reward/task_mean": reward, "seconds/update_total": 4.0}, event="update", version=f"v{update}")
    log.close()


def status(folder: Path, **changed: Any) -> dict[str, Any]:
    """Return what a driver says of a run that goes on."""
    idle = {"starting": 0, "leaving": 0, "resting": 0, "lost": 0, "failed_starts": 0, "queued": 0, "busy_seconds": 9.5}
    return {
        "run": folder.name,
        "folder": str(folder),
        "driver": 4711,
        "update": 24,
        "updates": 40,
        "version": "v24:0a1b2c3d",
        "learner": {"ranks": 2, "losses": 0},
        "groups": {"learned_from": 144, "under_way": 6, "replaced_tied_task_rewards": 3},
        "pools": {
            "rollout": idle | {"workers": 2, "wanted": 2, "queued": 4},
            "reward-ground_truth": idle | {"workers": 1, "wanted": 1},
        },
        "workers": {"rollout": ["rollout-0", "rollout-1"], "reward-ground_truth": ["reward-ground_truth-0"]},
        "waits": [
            {"who": "the learner", "what": "the groups of update 25", "seconds": 3.1, "deadline_s": 3600.0},
            {
                "who": "rollout",
                "what": "the rollout of pocket-train-00012 by rollout-1",
                "seconds": 2.2,
                "deadline_s": 600.0,
            },
        ],
        "stopping": False,
    } | changed


class StandIn:
    """A driver that does as told, and remembers it.

    Args:
        answer: its status; None, and it cannot be reached.
        silence: why, then.
    """

    def __init__(self, answer: dict[str, Any] | None, silence: str = "no Ray cluster answers at 10.0.0.7:6379") -> None:
        self.answer, self.silence = answer, silence
        self.told: list[tuple[str | int, ...]] = []
        self.closed = 0

    async def ask(self, verb: str, *arguments: str | int) -> Any:
        await asyncio.sleep(0)
        if self.answer is None:
            raise NotReachableError(self.silence)
        if verb == "status":
            return self.answer
        self.told.append((verb, *arguments))
        if verb == "stop":
            self.answer["stopping"] = True
            return "stopping: the update under way is finished, then a checkpoint is written"
        pool, workers = arguments
        before = self.answer["pools"][pool]["workers"]
        self.answer["pools"][pool] |= {"workers": workers, "wanted": workers}
        return f"{pool}: {before} -> {workers} workers"

    async def close(self) -> None:
        self.closed += 1
