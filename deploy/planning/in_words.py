"""What a run is about to do, in a few lines."""

from pathlib import Path

from deploy.cluster import amounts, demands
from rc_grpo.config import RunConfig
from rc_grpo.editor.registry import find


def plan_in_words(config: RunConfig, folder: Path, tasks: int, refused: int, heldout: int) -> str:
    """Return the plan of a run: editor, tasks, pools, rollout, learning."""
    rollout, objective = config.rollout, config.objective
    pools = ", ".join(f"{demand.count} {demand.pool} x ({amounts(demand.each.as_ray())})" for demand in demands(config))
    exploration = f"{rollout.exploration}, alpha {rollout.alpha_edit:g} in the mask, {rollout.alpha_base:g} outside"
    if rollout.exploration == "global":
        exploration = f"global, alpha {rollout.alpha_edit:g}"
    if rollout.explore is not None:
        exploration += f", chosen from {rollout.candidates} made in {rollout.exploring_steps} steps"
    training, evaluating = config.editor.guidance, config.evaluated.guidance
    guidance = f"guidance {training:g}" + ("" if evaluating == training else f", {evaluating:g} in evaluations")
    shown = config.editor.source_resolution or find(config.editor).source_resolution
    sources = "" if shown is None else f", sources shown at {shown} px squared"
    sources += "" if config.editor.sources == 1 else f", up to {config.editor.sources} sources a task"
    start = "" if config.learner.start_from is None else f" from {config.learner.start_from}"
    return (
        f"run      {config.name} in {folder}\n"
        f"editor   {config.editor.model}, {config.editor.dtype}, LoRA rank {config.editor.lora.rank}{start}{sources}\n"
        f"tasks    {tasks} to train on, {refused} refused, {heldout} held out\n"
        f"pools    {pools}, ZeRO {config.learner.zero_stage}\n"
        f"rollout  {rollout.group_size} candidates, {rollout.steps} {rollout.solver} steps, {exploration}, {guidance}\n"
        f"learning {config.loop.updates} updates of {config.loop.groups_per_update} groups, "
        f"{objective.anchors} anchors by {objective.anchor_path}, ACD weight {objective.acd_weight:g}, "
        f"max staleness {config.loop.max_staleness}"
    )
