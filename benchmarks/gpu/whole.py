"""Whole updates of the full-size model on one GPU that a rollout worker and a learner rank share, phase by phase.

    python -m benchmarks.gpu.whole

Everything is the system's own but the judge, a fixed scorer of colour inside the mask (random weights edit nothing that
a judge could tell apart). Leaves ``benchmarks/results/gpu_whole.json``.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass

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
Phases = dict[str, float]


@dataclass(frozen=True)
class Precision:
    """One that everything is measured in.

    Attributes:
        rollout: of the worker.
        learner: of the rank.
        objective: that goes with both.
    """

    rollout: RolloutConfig
    learner: LearnerConfig
    objective: ObjectiveConfig


ROLLOUT = RolloutConfig(workers=1, resources=HALF, threads=8, start_deadline_s=300)
LEARNER = LearnerConfig(resources=HALF, threads=8, start_deadline_s=300)
EXPLORING = ROLLOUT.model_copy(update={"explore": ExploreConfig(candidates=48)})
BFLOAT16, FLOAT8 = "bfloat16", "float8"
PRECISIONS = {
    BFLOAT16: Precision(ROLLOUT, LEARNER, ObjectiveConfig()),
    FLOAT8: Precision(
        ROLLOUT.model_copy(update={"fp8": "all"}),
        LEARNER.model_copy(update={"fp8": True}),
        ObjectiveConfig(old_path="recompute"),
    ),
}


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


async def updates(precision: Precision, tasks: list[EditTask]) -> list[Phases]:
    """Start both services on the GPU, and run the updates."""
    shape = RunShape(SEED, ROLLOUT.solver, ROLLOUT.steps, UPDATES, 0, {SCORER: 1.0})
    rollouts = RolloutPool(KONTEXT, precision.rollout, SEED, HOME)
    learner = LearnerGroup(KONTEXT, precision.learner, precision.objective, shape, HOME)
    try:
        await asyncio.gather(rollouts.open(), learner.open())
        await rollouts.adopt(*await learner.publish())
        return [
            await update(rollouts, learner, tasks[number * GROUPS : (number + 1) * GROUPS], number)
            for number in range(UPDATES)
        ]
    finally:
        rollouts.close()
        learner.close()


async def explored(tasks: list[EditTask]) -> float:
    """Return how many times as long as a group alone a group takes that is chosen from a pool, the judge apart.

    What is chosen does not matter to the clock: here it is the first. The first task is the warm-up.
    """
    ratios = []
    rollouts = RolloutPool(KONTEXT, EXPLORING, SEED, HOME)
    try:
        await rollouts.open()
        await rollouts.adopt(*await rollouts.untrained())
        for number, task in enumerate(tasks):
            seeds = RolloutSeeds.for_group(SEED, number, task.task_id, EXPLORING.candidates)
            pool = await rollouts.explore(task, seeds)
            group = await rollouts.rollout(task, seeds.of(range(ROLLOUT.group_size)))
            alone = sum(group.receipt.seconds.values())
            ratios.append((alone + sum(pool.receipt.seconds.values())) / alone)
            print(f"explored: {pool.receipt.seconds}, exactly: {group.receipt.seconds}", flush=True)
    finally:
        rollouts.close()
    return statistics.median(ratios[1:])


def typical_of(phases: list[Phases]) -> Phases:
    """Return the medians of updates without the first, which compiles."""
    return {name: statistics.median(one[name] for one in phases[1:]) for name in phases[1]}


def main() -> None:
    """Measure and write."""
    world = PocketWorld("train", GROUPS * UPDATES)
    tasks = [world[index] for index in range(GROUPS * UPDATES)]
    ray.init(address="local", namespace=HOME, include_dashboard=False)
    try:
        measured = {name: asyncio.run(updates(precision, tasks)) for name, precision in PRECISIONS.items()}
        explore_cost = asyncio.run(explored(tasks[:3]))
    finally:
        ray.shutdown()
    typical = {name: typical_of(phases) for name, phases in measured.items()}
    for name, phases in typical.items():
        show(
            f"an update of {GROUPS} groups of {ROLLOUT.group_size} in {name}",
            ("phase", "seconds", "of the update"),
            [(phase, value, f"{value / phases['wall']:.1%}") for phase, value in phases.items()],
        )
    exact, fast = typical[BFLOAT16], typical[FLOAT8]
    worked = sum(value for name, value in exact.items() if name.startswith("rollouts: "))
    anchors = PRECISIONS[BFLOAT16].objective.anchors
    setting = f"{GROUPS} groups of {ROLLOUT.group_size} at 512x512, T = 8, B = {anchors}, chain; one after other"
    candidates = GROUPS * ROLLOUT.group_size
    in_float8 = f"{setting}; rollout.fp8=all, learner.fp8"
    write(
        "gpu_whole",
        {
            "seconds_per_update": Figure(exact["wall"], "seconds", None, f"{setting}; bfloat16"),
            "seconds_per_update_fp8": Figure(fast["wall"], "seconds", None, in_float8),
            "candidates_per_second": Figure(candidates / fast["wall"], "candidates/s", "at least 1.3", in_float8),
            "candidates_per_second_bf16": Figure(candidates / exact["wall"], "candidates/s", None, setting),
            "transformer_share": Figure(
                exact["transformer"] / exact["wall"],
                "fraction",
                "at least 0.90",
                "integration, and the adjoint's sweep; bfloat16",
            ),
            "rollout_share_of_worker": Figure(
                exact["rollouts: integrate"] / worked,
                "fraction",
                "at least 0.95",
                "encode, decode, collect and ship; bfloat16",
            ),
            "explore_cost": Figure(
                explore_cost,
                "times the time of a group alone",
                "at most 2.4",
                f"{EXPLORING.candidates} in {EXPLORING.exploring_steps} steps in float8, then the group exactly",
            ),
        },
        {"updates": measured, "median": typical},
        module="benchmarks.gpu.whole",
    )


if __name__ == "__main__":
    main()
