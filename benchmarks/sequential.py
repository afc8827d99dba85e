"""Region-constrained GRPO as one sequential program: no Ray, no DeepSpeed, the same equations.

For sweeps of hyper-parameters, where starting a cluster for each point would cost more than the point. Many points run
side by side on one GPU:

    python -m benchmarks.sequential --sweep sweep.yaml --processes 8 --out DIR

``sweep.yaml`` holds a list of override lists, one for each point.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from deploy.batches.exploring import chosen_of_pool
from deploy.batches.ledger import Ledger
from deploy.records.metrics import explore_metrics
from learner.activations import arrange
from learner.schedule import learning_rate_factor
from learner.statistics import Statistics
from learner.updates import UPDATES
from learner.work import GroupWork, RunShape, batch_advantages, draw_anchors, draw_steps
from rc_grpo.config import RunConfig, load
from rc_grpo.data import load_tasks
from rc_grpo.editor import lora
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.export import read_lora
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen
from rc_grpo.editor.files import resolve_device
from rc_grpo.editor.loading import load_denoiser, load_rollout_editor
from rc_grpo.evaluation.background import background_metrics
from rc_grpo.images import Pixels
from rc_grpo.messages import CandidateGroup, EditTask, Explored, PolicyVersion, RolloutSeeds
from rc_grpo.seeds import derive
from reward_service.ground_truth import GroundTruthJudge
from reward_service.judge import Judge
from reward_service.scoring import score_group
from rollout_workers.rollout import PreparedTask, diversity, explore, finished, prepare, roll_out

JUDGE = "ground_truth"
NORMS = ("velocity_norm_edit", "velocity_norm_background")
POLICY = PolicyVersion(0, "sequential", 0, is_identity=False)


class HeldOut:
    """Edits the held-out tasks without perturbation, always from the same noise, and scores them.

    Args:
        judge: scores the edits.
        tasks: held-out tasks.
        config: of the run.
    """

    def __init__(self, judge: GroundTruthJudge, tasks: list[EditTask], config: RunConfig) -> None:
        self._judge, self._tasks, self._config = judge, tasks, config
        self._device = resolve_device(config.editor)
        self._of_base: list[Pixels] = []

    def measure(self, editor: Editor) -> dict[str, list[float]]:
        """Return reward, the judge's parts, background metrics and the distance from the first policy's edits, by task.

        The distance is the RMS difference of the pixels, in 0..1.
        """
        found: dict[str, list[float]] = {}
        images = []
        for index, task in enumerate(self._tasks):
            group = self._edit(editor, task)
            images.append(group.images[0])
            scores = asyncio.run(score_group(self._judge, task, group))
            values = {"reward": scores.task_reward[0], "drift": group.background_drift[0]}
            values |= {name.removeprefix(f"{JUDGE}."): array[0] for name, array in scores.subscores.items()}
            values |= background_metrics(task, images[-1], self._device)
            base = self._of_base[index] if self._of_base else images[-1]
            values["distance_from_base"] = np.sqrt(np.mean(np.square((images[-1].astype(np.float32) - base) / 255)))
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
        self._of_base = self._of_base or images
        return found

    def _edit(self, editor: Editor, task: EditTask) -> CandidateGroup:
        seeds = RolloutSeeds(derive(self._config.seed, "heldout", task.task_id))
        rollout, evaluation = self._config.rollout, self._config.evaluation
        options = {"steps": evaluation.steps, "guidance": evaluation.guidance}
        prepared = prepare(editor, task, rollout)
        return roll_out(editor, task.task_id, prepared, seeds, POLICY, rollout, **options, keep_states=False)


def run(config: RunConfig, log: Any, every: int, budget: float, judge: Judge | None = None) -> dict[str, Tensor]:
    """Train, report held-out figures every so many updates, and return the LoRA weights.

    Args:
        config: of the run.
        log: is given a record of every update and of every evaluation.
        every: so many updates held-out figures are reported.
        budget: seconds of training, without evaluations, after which the run ends with the update under way.
        judge: whose rewards are learned from, by default the ground truth's; held-out figures are always that one's.
    """
    torch.set_num_threads(1)
    judge = judge or GroundTruthJudge()
    actor = load_rollout_editor(config.editor, config.rollout, config.seed)
    trained = load_denoiser(config.editor, config.seed)
    if config.learner.fp8:
        quantise_frozen(trained.body)
    arrange(trained.body, "store", compiled=config.editor.compile)
    if config.learner.start_from is not None:
        for policy in (actor.policy, trained.policy):
            policy.load(read_lora(config.editor.lora, config.learner.start_from))
    tasks, held_out = load_tasks(config.data.train), list(load_tasks(config.data.heldout, purpose="evaluate"))
    evaluation = HeldOut(GroundTruthJudge(), held_out[: config.evaluation.tasks], config)
    parameters = list(trained.policy.weights().values())
    optimiser = torch.optim.AdamW(
        parameters, config.learner.learning_rate, config.learner.betas, weight_decay=config.learner.weight_decay
    )
    schedule = LambdaLR(optimiser, learning_rate_factor(config.learner, config.loop.updates))
    loop, settings, version = config.loop, config.objective, 0
    shape = RunShape(
        config.seed, config.rollout.solver, config.rollout.steps, loop.updates, 0, {JUDGE: 1.0}, config.rollout.sde
    )
    ledger = Ledger(len(tasks), loop.updates, loop.groups_per_update, 0, config.seed)
    log({"update": 0, "heldout": evaluation.measure(actor)})
    spent = 0.0
    for update in range(loop.updates):
        started, batch = finished(actor.device), []
        for ticket in ledger.dispatch(update):
            task = tasks[ticket.task]
            prepared, policy = prepare(actor, task, config.rollout), replace(POLICY, number=version)
            seeds = ledger.seeds(ticket, task.task_id, config.rollout.candidates)
            explored = None
            if config.rollout.explore is not None:
                seeds, explored = _chosen(actor, judge, task, prepared, seeds, policy, config)
            group = roll_out(actor, task.task_id, prepared, seeds, policy, config.rollout)
            scores = asyncio.run(score_group(judge, task, group, prune=config.reward.prune))
            batch.append((task, prepared.conditions, group, replace(scores, explored=explored)))
        advantages, skipped = batch_advantages([scores for *_, scores in batch], shape.judge_weights, settings)
        kept = [index for index, reason in enumerate(skipped) if reason is None]
        statistics = Statistics()
        for index in kept:
            task, conditions, group, _ = batch[index]
            work = GroupWork(
                group=None,
                conditions=None,
                advantages=advantages[index].numpy(),
                anchors=draw_anchors(shape, version, task.task_id, group.size, settings.anchors),
                steps=draw_steps(shape, version, task.task_id, settings.trained_steps, shape.window(version)),
                on_policy=True,
            )
            step = UPDATES[settings.algorithm](trained, group, conditions, work, settings, shape)
            step.prepare(None, step.values, on_policy=True, again=False)
            step.backward(1 / len(kept), Tensor.backward, statistics)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.learner.grad_norm)
        if kept:
            optimiser.step()
            schedule.step()
            version += 1
            actor.policy.load(lora.copied(trained.policy.weights()))
        optimiser.zero_grad()
        spent += finished(actor.device) - started
        rewards = np.stack([scores.task_reward for *_, scores in batch])
        log(
            {
                "update": update + 1,
                "tasks": [task.task_id for task, *_ in batch],
                "candidates": int(rewards.size),
                "reward": np.nanmean(rewards, axis=1).tolist(),
                "std": np.nanstd(rewards, axis=1).tolist(),
                "drift": [float(group.background_drift.mean()) for _, _, group, _ in batch],
                "diversity": [diversity(group.images) for _, _, group, _ in batch],
                "skipped": len(batch) - len(kept),
                "grad_norm": float(norm),
                "trained_seconds": spent,
                **explore_metrics([scores for *_, scores in batch]),
                **{name: value for name, value in statistics.result().means.items() if name in NORMS},
            }
        )
        last = update + 1 == loop.updates or spent >= budget
        if (update + 1) % every == 0 or last:
            log({"update": update + 1, "heldout": evaluation.measure(actor)})
        if last:
            break
    return lora.copied(trained.policy.weights())


def _chosen(
    actor: Editor,
    judge: Judge,
    task: EditTask,
    prepared: PreparedTask,
    seeds: RolloutSeeds,
    policy: PolicyVersion,
    config: RunConfig,
) -> tuple[RolloutSeeds, Explored | None]:
    """Return what a group is made from and the pool that it was chosen from, as the collector does."""
    pool = explore(actor, task.task_id, prepared, seeds, policy, config.rollout)
    scores = asyncio.run(score_group(judge, task, pool, prune=config.reward.prune))
    size = config.rollout.group_size
    explored = chosen_of_pool(policy, seeds, (), scores, {scores.judge: 1.0}, size)
    return seeds.of(range(size) if explored is None else explored.chosen), explored


def _point(arguments: tuple[int, list[str], str, str, int, float]) -> str:
    index, overrides, name, out, every, seconds = arguments
    started = time.monotonic()
    with Path(out, f"point-{index:02d}.jsonl").open("w", buffering=1) as file:

        def log(record: dict[str, Any]) -> None:
            file.write(json.dumps(record | {"seconds": round(time.monotonic() - started, 1)}) + "\n")

        log({"overrides": overrides})
        run(load(Path(name), tuple(overrides)), log, every, seconds)
    return f"{index} {overrides}"


def main() -> None:
    """Run the points of a sweep, several at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="deploy/configs/pocket.yaml")
    parser.add_argument("--sweep", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], help="an override for every point")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1e9, help="of training, after which a point stops")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    points = [
        (index, options.set + overrides, options.config, str(options.out), options.every, options.seconds)
        for index, overrides in enumerate(yaml.safe_load(options.sweep.read_text()))
    ]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for finished in pool.imap_unordered(_point, points):
            print(finished, flush=True)


if __name__ == "__main__":
    main()
