"""Whole updates of the full-size model on one GPU that a rollout worker and a learner rank share, phase by phase.

    python -m benchmarks.gpu.whole

Everything is the system's own but the judge, a fixed scorer of colour inside the mask (random weights edit nothing that
a judge could tell apart). Leaves ``benchmarks/results/gpu_whole.json``.
"""

import asyncio
import statistics
import time
from typing import Any

import numpy as np
import ray

from benchmarks.gpu.measuring import KONTEXT, show
from benchmarks.results import Figure, write
from learner.group import LearnerGroup
from learner.work import RunShape
from rc_grpo.config import LearnerConfig, ObjectiveConfig, Resources, RolloutConfig
from rc_grpo.config.rollout import ExploreConfig
from rc_grpo.editor.geometry import binary_mask, resize_mask
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores, RolloutSeeds, ScoredGroup
from rc_grpo.pocket.world import PocketWorld
from rollout_workers.pool import Rollout, RolloutPool

SEED, GROUPS, UPDATES, HOME, SCORER = 0, 4, 2, "gpu-whole", "colour"
HALF = Resources(num_gpus=0.5, num_cpus=4)
ROLLOUT = RolloutConfig(
    workers=1, resources=HALF, threads=8, start_deadline_s=300, explore=ExploreConfig(candidates=48)
)
LEARNER = LearnerConfig(resources=HALF, threads=8, start_deadline_s=300)
OBJECTIVE = ObjectiveConfig()
Phases = dict[str, float]


def score(task: EditTask, rollout: Rollout) -> ScoredGroup:
    """Score a group by how red its edit is inside the mask: a judge that needs no truth and never changes."""
    group = CandidateGroup.from_arrow(ray.get(rollout.group))
    inside = resize_mask(binary_mask(task.mask), *group.images.shape[1:3])[..., None]
    colour = (group.images * inside).sum(axis=(1, 2)) / inside.sum()
    reward = (colour[:, 0] - colour[:, 1:].mean(axis=1)).astype(np.float64)
    scores = GroupScores(task.task_id, SCORER, reward, group.acd_reward, rewards={SCORER: reward})
    return ScoredGroup(task, rollout.receipt, scores, rollout.group, rollout.conditions)


async def update(rollouts: RolloutPool, learner: LearnerGroup, tasks: list[EditTask], number: int) -> Phases:
    """Run one synchronous update and return its phases in seconds."""
    phases: Phases = {}
    marks = [time.perf_counter()]

    def lap(name: str) -> None:
        marks.append(time.perf_counter())
        phases[name] = marks[-1] - marks[-2]

    seeds = [RolloutSeeds.for_group(SEED, number, task.task_id, ROLLOUT.group_size) for task in tasks]
    made = await asyncio.gather(*(rollouts.rollout(task, seed) for task, seed in zip(tasks, seeds, strict=True)))
    lap("rollouts")
    batch = [score(task, rollout) for task, rollout in zip(tasks, made, strict=True)]
    lap("scoring")
    report = await learner.update(batch)
    lap("update")
    await rollouts.adopt(*await learner.publish())
    while number + 1 > max((proof.version for proof in rollouts.proofs.values()), default=-1):
        await asyncio.sleep(0.005)
    lap("publication")
    for scored in batch:
        for part, seconds in scored.receipt.seconds.items():
            phases[f"rollouts: {part}"] = phases.get(f"rollouts: {part}", 0.0) + seconds
    for name, value in report.metrics.items():
        if name.startswith("update/seconds"):
            phases[name.replace("update/seconds_", "update: ").replace("update/seconds", "update: all")] = value
    phases["wall"] = marks[-1] - marks[0]
    phases["transformer"] = phases["rollouts: integrate"] + phases["update: anchors"] + phases["update: backward"]
    diagnostics = {name: value for name, value in report.metrics.items() if "max_" in name or "grad_norm" in name}
    print(number, {name: round(value, 4) for name, value in phases.items()}, diagnostics, flush=True)
    return phases


async def explored(rollouts: RolloutPool, tasks: list[EditTask]) -> float:
    """Return how many times as long as a group alone a group takes that is chosen from a pool, the judge apart.

    What is chosen does not matter to the clock: here it is the first. The first task is the warm-up.
    """
    ratios = []
    for number, task in enumerate(tasks):
        seeds = RolloutSeeds.for_group(SEED, number, task.task_id, ROLLOUT.candidates)
        pool = await rollouts.explore(task, seeds)
        group = await rollouts.rollout(task, seeds.of(range(ROLLOUT.group_size)))
        alone = sum(group.receipt.seconds.values())
        ratios.append((alone + sum(pool.receipt.seconds.values())) / alone)
    return statistics.median(ratios[1:])


async def measure() -> tuple[list[Phases], float]:
    """Start both services on the GPU, run the updates, and explore."""
    world = PocketWorld("train", GROUPS * UPDATES)
    tasks = [world[index] for index in range(GROUPS * UPDATES)]
    shape = RunShape(SEED, ROLLOUT.solver, ROLLOUT.steps, UPDATES, 0, {SCORER: 1.0})
    rollouts = RolloutPool(KONTEXT, ROLLOUT, SEED, HOME)
    learner = LearnerGroup(KONTEXT, LEARNER, OBJECTIVE, shape, HOME)
    try:
        await asyncio.gather(rollouts.open(), learner.open())
        await rollouts.adopt(*await learner.publish())
        updates = [
            await update(rollouts, learner, tasks[number * GROUPS : (number + 1) * GROUPS], number)
            for number in range(UPDATES)
        ]
        return updates, await explored(rollouts, tasks[:4])
    finally:
        rollouts.close()
        learner.close()


def main() -> None:
    """Measure and write."""
    ray.init(address="local", namespace=HOME, include_dashboard=False)
    try:
        updates, explore_cost = asyncio.run(measure())
    finally:
        ray.shutdown()
    # The first compiles.
    typical: dict[str, Any] = {name: statistics.median(phases[name] for phases in updates[1:]) for name in updates[1]}
    wall = typical["wall"]
    show(
        f"an update of {GROUPS} groups of {ROLLOUT.group_size} at {KONTEXT.resolution} pixels, T = {ROLLOUT.steps}",
        ("phase", "seconds", "of the update"),
        [(name, value, f"{value / wall:.1%}") for name, value in typical.items()],
    )
    worked = sum(value for name, value in typical.items() if name.startswith("rollouts: "))
    setting = (
        f"{GROUPS} groups of {ROLLOUT.group_size} at 512x512, T = 8, B = {OBJECTIVE.anchors}, chain; one after other"
    )
    write(
        "gpu_whole",
        {
            "seconds_per_update": Figure(wall, "seconds", None, setting),
            "candidates_per_second": Figure(GROUPS * ROLLOUT.group_size / wall, "candidates/s", None, setting),
            "transformer_share": Figure(
                typical["transformer"] / wall, "fraction", "at least 0.90", "integration, and the adjoint's sweep"
            ),
            "rollout_share_of_worker": Figure(
                typical["rollouts: integrate"] / worked, "fraction", "at least 0.95", "encode, decode, collect and ship"
            ),
            "explore_cost": Figure(
                explore_cost,
                "times the time of a group alone",
                "at most 2.4",
                f"{ROLLOUT.candidates} candidates in {ROLLOUT.exploring_steps} steps in float8, and the exact group",
            ),
        },
        {"updates": updates, "median": typical},
        module="benchmarks.gpu.whole",
    )


if __name__ == "__main__":
    main()
