"""From a finished update to the first group under the new weights: eight workers, a LoRA of the real one's size.

The real learner, the real rollout workers and the pocket editor, whose LoRA is given so high a rank that its weights
are 105 MB, as FLUX.1 Kontext's are at rank 32 in bfloat16. Each round learns from real groups (their scores are drawn),
publishes, and rolls out with one step, so that the time is the publication's and not the rollout's.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import ray
import torch
from ray.experimental import get_object_locations

from benchmarks import results
from benchmarks.results import Figure
from deploy.configs import load_config
from deploy.run.assembly import make_services
from learner.group import LearnerGroup
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.editor import lora
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.messages import GroupScores, RolloutSeeds, ScoredGroup
from rollout_workers.pool import RolloutPool

WORKERS, MEGABYTES, WARM_UP = 8, 105.0, 2
BYTES_A_RANK = 43_008
"""Of the pocket editor's LoRA in float32; what the object store then holds is in the result."""

SHAPE = (
    "rollout.group_size=3",
    "rollout.steps=1",
    "objective.anchors=1",
    f"rollout.workers={WORKERS}",
    "learner.ranks=1",
    "learner.learning_rate=1e-5",
    "evaluation.tasks=0",
    f"editor.lora.rank={round(MEGABYTES * 1e6 / BYTES_A_RANK)}",
)


def configured() -> RunConfig:
    """Return the run's configuration."""
    return load_config("pocket", ["name=publish", f"output.root={tempfile.gettempdir()}", *SHAPE])


def adoption() -> float:
    """Return the seconds of one core that a worker takes to hash a version, merge it and prove it."""
    torch.set_num_threads(1)
    config = configured()
    editor = load_rollout_editor(config.editor, config.rollout, config.seed)
    weights = lora.copied(editor.policy.weights())
    seconds = []
    for number in range(1, WARM_UP + 4):
        changed = {name: tensor + 1e-3 * number for name, tensor in weights.items()}
        version, data = lora.pack(number, changed)
        started = time.perf_counter()
        editor.adopt(version, data, worker="alone")
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[WARM_UP:])


async def measure(rounds: int) -> list[dict[str, Any]]:
    """Return what each round took."""
    config = configured()
    rollouts, _, learner = make_services(config)
    assert isinstance(learner, LearnerGroup)
    tasks = load_tasks(config.data.train)
    try:
        await asyncio.gather(rollouts.open(), learner.open())
        await rollouts.adopt(*await learner.publish())
        return [await _round(number, rollouts, learner, tasks[number]) for number in range(rounds)]
    finally:
        rollouts.close()
        learner.close()


async def _round(number: int, rollouts: RolloutPool, learner: LearnerGroup, task: Any) -> dict[str, Any]:
    seeds = RolloutSeeds.for_group(0, number, task.task_id, 3)
    group = await rollouts.rollout(task, seeds)
    reward = np.random.default_rng(number).random(3)
    scores = GroupScores(task.task_id, "ground_truth", reward, reward)
    await learner.update([ScoredGroup(task, group.receipt, scores, group.group, group.conditions)])

    started = time.perf_counter()
    version, weights = await learner.publish()
    published = time.perf_counter()
    await rollouts.adopt(version, weights)
    waiting = [asyncio.create_task(rollouts.rollout(task, seeds, keep_states=False)) for _ in range(WORKERS)]
    done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    first = time.perf_counter()
    assert all(task.result().receipt.policy == version for task in done)
    await asyncio.gather(*waiting)
    last = time.perf_counter()
    while any(rollouts.proofs[member.name].version != version.number for member in rollouts.members):
        await asyncio.sleep(0.01)
    place = (await asyncio.to_thread(get_object_locations, [weights]))[weights]
    return {
        "publish_seconds": published - started,
        "first_group_seconds": first - started,
        "all_groups_seconds": last - started,
        "last_proof_seconds": max(rollouts.sync_seconds.values()) + published - started,
        "megabytes": place["object_size"] / 1e6,
        "copies": len(place["node_ids"]),
        "lost": rollouts.statistics.lost,
    }


def main() -> None:
    """Measure and write ``results/publish.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=22)
    rounds = parser.parse_args().rounds
    ray.init(address="local", num_cpus=16, include_dashboard=False)
    try:
        measured = asyncio.run(measure(rounds))[WARM_UP:]
    finally:
        ray.shutdown()
    alone = adoption()
    first = [record["first_group_seconds"] for record in measured]
    last = [record["last_proof_seconds"] for record in measured]
    size = measured[-1]["megabytes"]
    note = f"{WORKERS} workers on this machine's cores, LoRA of {size:.0f} MB, {len(measured)} versions"
    figures = {
        "p50_seconds": Figure(statistics.median(first), "seconds", "below 1", f"publish to first group; {note}"),
        "p95_seconds": Figure(float(np.quantile(first, 0.95)), "seconds", None, f"publish to first group; {note}"),
        "last_proof_p50_seconds": Figure(statistics.median(last), "seconds", None, f"until all have proved it; {note}"),
        "all_groups_p50_seconds": Figure(
            statistics.median(record["all_groups_seconds"] for record in measured),
            "seconds",
            None,
            f"until {WORKERS} groups are made under it; {note}",
        ),
        "adoption_core_seconds": Figure(
            alone, "seconds", None, "one worker, one core, nothing beside it: hashed, merged, proved"
        ),
        "copies_in_object_store": Figure(max(record["copies"] for record in measured), "copies", "1", note),
        "workers_lost": Figure(measured[-1]["lost"], "workers", "0", note),
    }
    print(results.write("publish", figures, {"rounds": measured}).read_text()[:3000])


if __name__ == "__main__":
    main()
