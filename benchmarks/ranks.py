"""One batch that is learned from by learners of different shape, and how far apart the weights are that come out.

All of it is the system's own, but for the scores, which are draws: what they mean is nothing to a learner.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
import torch
from torch import Tensor

from benchmarks.stubs import some_scores
from learner.group import LearnerGroup, UpdateReport
from learner.work import RunShape
from rc_grpo.config import RunConfig
from rc_grpo.data import load_tasks
from rc_grpo.editor import lora
from rc_grpo.editor.export import save_lora
from rc_grpo.editor.loading import load_denoiser, load_rollout_editor
from rc_grpo.messages import PolicyVersion, RolloutReceipt, RolloutSeeds, ScoredGroup
from rollout_workers.rollout import prepare, roll_out

JUDGE = "stub"
_SIZE = 0.05
"""Standard deviation of what is added to an untrained LoRA: the first step from zeros is Adam's sign of every gradient,
those that are rounding alone included."""


def trained_lora(config: RunConfig, folder: Path) -> dict[str, Tensor]:
    """Write a LoRA that acts, as ``learner.start_from`` takes it, and return its weights."""
    denoiser = load_denoiser(config.editor, config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    weights = {
        name: tensor + _SIZE * torch.randn(tensor.shape, generator=generator)
        for name, tensor in lora.copied(denoiser.policy.weights()).items()
    }
    save_lora(denoiser, weights, folder)
    return weights


def batch_of(config: RunConfig, weights: Mapping[str, Tensor], groups: int, unscored: int = 0) -> list[ScoredGroup]:
    """Roll groups out in this process, and put them where ranks find them.

    Args:
        config: of a run.
        weights: of the policy that acts.
        groups: how many.
        unscored: of these nobody scored a candidate: they are skipped.
    """
    editor, settings = load_rollout_editor(config.editor, config.rollout, config.seed), config.rollout
    editor.policy.load(weights)
    policy = PolicyVersion(0, "", len(weights), is_identity=False)
    tasks, batch = load_tasks(config.data.train), []
    for index in range(groups):
        task = tasks[index]
        prepared = prepare(editor, task, settings)
        seeds = RolloutSeeds.for_group(config.seed, 0, task.task_id, settings.group_size)
        group = roll_out(editor, task.task_id, prepared, seeds, policy, settings)
        scores = replace(some_scores(task.task_id, settings.group_size), acd_reward=group.acd_reward)
        if index < unscored:
            nothing = np.full(settings.group_size, np.nan)
            scores = replace(scores, task_reward=nothing, rewards={JUDGE: nothing})
        receipt = RolloutReceipt(task.task_id, policy, "none", tuple(group.background_drift.tolist()), 0.0, {})
        batch.append(ScoredGroup(task, receipt, scores, ray.put(group.to_arrow()), ray.put(prepared.conditions)))
    return batch


async def learned(
    config: RunConfig, start_from: Path, batch: Sequence[ScoredGroup], home: str, updates: int = 1, staleness: int = 0
) -> tuple[list[dict[str, Tensor]], UpdateReport]:
    """Return the weights after each update from a LoRA, and what the learner says of the last.

    Args:
        config: whose ``learner`` says the shape.
        start_from: folder of `trained_lora`.
        batch: of `batch_of`.
        home: Ray namespace of the ranks.
        updates: on the same batch.
        staleness: bound of it. Within it the batch stays the first version's; beyond, it is taken as the policy's own.
    """
    rollout, objective = config.rollout, config.objective
    shape = RunShape(config.seed, rollout.solver, rollout.steps, updates, staleness, {JUDGE: 1.0}, rollout.sde)
    settings = config.learner.model_copy(update={"start_from": start_from})
    learner = LearnerGroup(config.editor, settings, objective, shape, home)
    try:
        await learner.open()
        version, _ = await learner.publish()
        learnt: list[dict[str, Tensor]] = []
        for done in range(updates):
            policy = batch[0].receipt.policy if 0 < done <= staleness else version
            own = [replace(scored, receipt=replace(scored.receipt, policy=policy)) for scored in batch]
            report = await learner.update(own)
            version, weights = await learner.publish()
            learnt.append(lora.copied(lora.deserialise(await weights)))
        return learnt, report
    finally:
        learner.close()


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Return how far two sets of weights are apart: the largest norm of a difference, over that of the weight."""
    return max(float((other[name] - tensor).norm() / tensor.norm()) for name, tensor in one.items())
