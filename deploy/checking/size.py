"""How large a run's folder becomes, at most: from its configuration alone."""

from rc_grpo.config import RunConfig
from rc_grpo.editor import lora
from rc_grpo.editor.loading import load_architecture

FLOAT = 4
CHANNELS = 128
"""Of a token of latents, in the family that has most."""

OPTIMISER_FLOATS = 4
"""A parameter in a checkpoint: the weight, its float32 master, and Adam's two moments; a moving average is one more."""


def run_size(config: RunConfig) -> dict[str, int]:
    """Return the bytes of a run's folder by what takes them.

    An upper bound: images and trajectories are counted as they are in memory, before compression.

    Args:
        config: of the run.
    """
    editor, output, loop = config.editor, config.output, config.loop
    size = load_architecture(editor)
    parameters = lora.count_parameters(lora.adapted(size.projections, editor.lora.targets), editor.lora.rank)
    weights = parameters * FLOAT
    floats = OPTIMISER_FLOATS + (config.learner.ema_decay is not None)
    versions = loop.updates if output.policies == "all" else loop.updates // output.checkpoint_every + 2
    kept = min(output.checkpoints_kept, loop.updates // output.checkpoint_every + 2)
    candidates = loop.updates * loop.groups_per_update * config.rollout.group_size
    sizes = {"LoRA weights": 2 * weights}
    if loop.learn:
        sizes |= {"checkpoints": kept * parameters * floats * FLOAT, "policies": versions * weights}
    if output.experience != "none":
        sizes["experience"] = candidates * _candidate(config)
    return sizes


def _candidate(config: RunConfig) -> int:
    """Return the bytes of a candidate in the experience log; text is next to nothing."""
    size = load_architecture(config.editor)
    image = 3 * config.editor.resolution**2 if config.output.experience in ("images", "states") else 0
    if config.output.experience != "states":
        return image
    return image + (config.rollout.steps + 1) * size.tokens(config.editor).target * CHANNELS * FLOAT
