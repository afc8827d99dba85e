"""What the doctor looks at: each check takes the editor apart as little as it needs, and says one thing."""

import asyncio
import gc
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from deploy.checking.finding import Finding, State
from deploy.doctor.stock import StockEdit
from deploy.doctor.training_side import ALIKE, disagreement, training_side_edit
from deploy.errors import mendable
from rc_grpo.algorithm import metric, solver, surrogate
from rc_grpo.config import AnyJudgeConfig, RunConfig
from rc_grpo.editor import files, lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.fast import fp8
from rc_grpo.editor.loading import load_rollout_editor
from rc_grpo.images import decode_rgb
from rc_grpo.messages import CandidateGroup, Conditions, EditTask, PolicyVersion, RolloutSeeds
from rc_grpo.seeds import derive, normal
from reward_service.judge import JudgeUnavailableError
from reward_service.probing import verdicts
from rollout_workers.rollout import PreparedTask, roll_out

GROUP = 4
EIGHT_BIT_STEPS = 1
RANKS_KEPT = 0.99


def picture(editor: Editor, conditions: Conditions, stock: StockEdit, guidance: float) -> Finding:
    """Compare the picture that the training side makes with the stock pipeline's, of the same seed and steps."""
    subject = f"picture at guidance {guidance:g}"
    image = training_side_edit(editor, conditions, stock.states[0], guidance, len(stock.states))
    if image.shape != stock.image.shape:
        return Finding(
            subject, "fault", f"it is {image.shape[:2]} pixels, the stock pipeline's {stock.image.shape[:2]}"
        )
    apart = np.abs(image.astype(int) - stock.image)
    figures = {"max_abs": float(apart.max()), "equal_share": float((apart == 0).mean())}
    said = (
        f"{figures['max_abs']:.0f} of 255 at most from the stock pipeline's, {figures['equal_share']:.1%} of it equal"
    )
    wrong = disagreement(editor, conditions, stock, guidance)
    if wrong is None and figures["max_abs"] > EIGHT_BIT_STEPS:
        wrong = "the states or their decoding part later"
    return Finding(
        subject, "fine" if wrong is None else "fault", said if wrong is None else f"{wrong}; {said}", figures
    )


def bound(denoiser: Denoiser) -> Finding:
    """Say which projections the LoRA is on, and which blocks have none."""
    names = sorted(lora.adapted(denoiser.body.architecture.projections, denoiser.config.lora.targets))
    kinds = Counter(name.split(".", 2)[2] for name in names)
    with_one = {".".join(name.split(".")[:2]) for name in names}
    blocks = {".".join(name.split(".")[:2]) for name in denoiser.body.architecture.projections}
    said = f"{len(names)} modules: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    figures = {"modules": float(len(names)), "blocks_without": float(len(blocks - with_one))}
    if not (without := Counter(block.split(".")[0] for block in blocks - with_one)):
        return Finding("LoRA", "fine", said, figures)
    bare = ", ".join(f"{count} {kind}" for kind, count in without.items())
    return Finding("LoRA", "note", f"{said}; blocks without any: {bare}", figures)


def ratio(config: RunConfig, actor: Editor, learner: Denoiser, prepared: PreparedTask, task: EditTask) -> Finding:
    """Roll a group out and recompute it as the learner does, under the same weights: the ratio must be 1."""
    version, data = lora.pack(1, _acting(learner.policy.weights()))
    for side in (actor, learner):
        side.adopt(version, data, worker="doctor")
    group = _group(config, actor, prepared, task, version)
    states = torch.from_numpy(np.array(group.states)).transpose(0, 1).to(learner.device)
    sigmas, field = torch.from_numpy(group.sigmas), learner.velocity(prepared.conditions)
    with torch.no_grad():
        path = solver.integrate(field, states[0], sigmas, config.rollout.solver)
    mask = torch.from_numpy(np.array(group.token_mask)).to(learner.device)
    objective = config.objective
    of_tokens = metric.region_weights(mask, states.shape[-1], objective.tau_edit, objective.tau_base, objective.power)
    largest = max(
        float(surrogate.log_ratio(states[n], path[n, 1:], states[n, 1:], of_tokens).abs().max())
        for n in range(1, len(states))
    )
    said = f"|log ratio| of a group recomputed by the learner under the same weights is {largest:.2g}"
    figures = {"max_abs_log_ratio": largest}
    if not largest < 1:
        return Finding("ratio on policy", "fault", f"{said}: rollout and learner are not one model", figures)
    if largest > objective.clip and objective.old_path == "stored":
        way_out = f"above objective.clip = {objective.clip:g}: set objective.old_path=recompute"
        return Finding("ratio on policy", "note", f"{said}, {way_out}", figures)
    return Finding("ratio on policy", "fine", said, figures)


def let_go() -> None:
    """Free what the last checks loaded: no card has room for three copies of an editor."""
    # A model's parts hold each other: counting references does not free them.
    gc.collect()


@torch.no_grad()
def prefix(actor: Editor, prepared: PreparedTask) -> Finding:
    """Ask whether the velocity behind a prefix that is computed once is that of whole passes, up to rounding."""
    conditions = prepared.conditions
    x = normal(derive("doctor", "prefix"), 2, *actor.latent_shape(conditions)).to(actor.device)
    field = actor.velocity(conditions)
    whole = field(x, 0.5)
    with field.held():
        behind = field(x, 0.5)
    apart, alike = float((behind - whole).norm() / whole.norm()), ALIKE[files.dtype(actor.config)]
    said = f"computed once a task, text and source leave a velocity {apart:.2g} off that of whole passes"
    return Finding("prefix", "fine" if apart <= alike else "fault", said, {"relative_difference": apart})


@torch.no_grad()
def recorder(config: RunConfig, actor: Editor, prepared: PreparedTask) -> Finding:
    """Ask whether recording attention changes a bit of the velocity."""
    acd, conditions = config.rollout.acd, prepared.conditions
    x = normal(derive("doctor", "recorder"), 2, *actor.latent_shape(conditions)).to(actor.device)
    field, counted = actor.velocity(conditions), torch.from_numpy(np.array(conditions.text_valid))
    plain = field(x, 0.5)
    layers = acd.chosen(actor.layers)
    with actor.recording(layers, prepared.mask, counted, acd.direction) as recorded:
        apart = float((field(x, 0.5) - plain).abs().max())
    density = float(recorded.density.mean())
    figures = {"max_abs": apart, "density": density}
    said = f"{len(layers)} layers, mean density {density:.2f}, largest change of the velocity {apart:.2g}"
    if not np.isfinite(density):
        return Finding("recorder", "fault", f"{said}: the density is no number", figures)
    # Compiled apart, graphs with and without it round differently.
    return Finding("recorder", "fine" if apart == 0 else "note" if config.editor.compile else "fault", said, figures)


def ranks_in_float8(config: RunConfig, prepared: PreparedTask, task: EditTask) -> Finding:
    """Ask whether float8 keeps the order of a group's candidates, by their distance to a fixed point."""
    editor = config.editor
    try:
        fp8.check(files.resolve_device(editor), files.dtype(editor))
    except ValueError as error:
        return Finding("float8", "note", f"not looked at: {error}")
    scores = []
    for in_fp8 in (False, True):
        # Each is arranged for its precision when it is loaded, once.
        actor = load_rollout_editor(editor, config.rollout.model_copy(update={"fp8": in_fp8}), config.seed)
        version, data = lora.pack(1, _acting(actor.policy.weights()))
        actor.adopt(version, data, worker="doctor")
        scores.append(_distances(_group(config, actor, prepared, task, version, size=12)))
        del actor
        let_go()
    kept = float(spearman_corrcoef(*scores))
    said = f"rank correlation of 12 candidates against bfloat16: {kept:.3f}"
    state: State = "fine" if kept >= RANKS_KEPT else "fault" if config.rollout.fp8 else "note"
    return Finding("float8", state, said, {"rank_correlation": kept})


def preference(name: str, judge: AnyJudgeConfig, task: EditTask) -> Finding:
    """Ask a judge whether it prefers the target to the untouched source."""
    subject = f"reward.judges.{name}"
    if task.target is None:
        return Finding(subject, "note", f"{task.task_id} has no target to be preferred to its source")
    images = np.stack([decode_rgb(task.target), decode_rgb(task.source)])
    with tempfile.TemporaryDirectory() as folder:
        try:
            target, untouched = asyncio.run(verdicts(judge, task, images, Path(folder)))
        except (JudgeUnavailableError, *mendable()) as error:
            return Finding(subject, "fault", f"asked about two images: {error}")
    if np.isnan([target.reward, untouched.reward]).any():
        return Finding(subject, "fault", f"it cannot score {task.task_id}: {target.reason or untouched.reason}")
    figures = {"target": target.reward, "source": untouched.reward}
    said = f"{target.reward:.3f} for the target of {task.task_id}, {untouched.reward:.3f} for its untouched source"
    if not judge.asks_for_the_edit:
        return Finding(
            subject, "note", f"{said}; it looks for damage alone, so that no preference is asked of it", figures
        )
    return Finding(subject, "fine" if target.reward > untouched.reward else "fault", said, figures)


def _acting(weights: Any) -> dict[str, Tensor]:
    """Return LoRA weights that act, of a size at which a model is still itself."""
    return {
        name: weight.detach().cpu() + 1e-3 * normal(derive("doctor", name), *weight.shape) * float(".lora_B." in name)
        for name, weight in weights.items()
    }


def _group(
    config: RunConfig, actor: Editor, prepared: PreparedTask, task: EditTask, version: PolicyVersion, size: int = GROUP
) -> CandidateGroup:
    seeds = RolloutSeeds(derive("doctor", "reference"), tuple(derive("doctor", "delta", n) for n in range(size - 1)))
    quiet = config.rollout.model_copy(
        update={"acd": config.rollout.acd.model_copy(update={"enabled": False}), "sde": None}
    )
    return roll_out(actor, task.task_id, prepared, seeds, version, quiet)


def _distances(group: CandidateGroup) -> Tensor:
    last = torch.from_numpy(np.array(group.states))[:, -1]
    return (last - normal(derive("doctor", "fixed point"), *last.shape[1:])).square().mean(dim=(1, 2))
