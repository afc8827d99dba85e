"""What an update asks of each stage: operations by the method, over what a GPU was seen to do with them, and memory.

Arithmetic on measured rates (`speeds.yaml`). Nothing is loaded and no cluster is asked.
"""

from dataclasses import dataclass
from typing import Literal

from deploy.planning.speeds import GpuSpeeds
from rc_grpo.config import EditorConfig, RunConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor import lora
from rc_grpo.editor.family import Architecture, Tokens
from rc_grpo.editor.guidance import is_two_passes
from rc_grpo.editor.registry import find

MIB, GIB = 2**20, 2**30
INTEGRATING = 0.958
"""Share of a rollout worker's time; the rest is encoding, decoding and shipping (`benchmarks.gpu.whole`)."""
ROLLOUT_MIB_PER_TOKEN = 0.25
"""An upper bound: the widest that a block holds of a token at a time, with room for the kernels' workspace."""
SMALLEST_WIDTH = 1024
"""Below it a model does not fill a GPU, and rates measured on 12 billion parameters say nothing about it."""
BYTES_PER_LORA_PARAMETER = 16
"""float32 weight, gradient and AdamW's two moments."""
KEPT: dict[Activations, float] = {"store": 1.0, "selective": 0.22, "recompute": 0.14}
"""Share of a step's activations that is in memory at the peak."""
FORWARD_AND_BACK = 2.0, 3.5
"""Operations of a step forward and back over those forward, of projections and of attention. Frozen projections pass on
one gradient, that of their inputs; attention's backward pass is two and a half times its forward."""
AGAIN: dict[Activations, tuple[float, float]] = {"store": (0, 0), "selective": (0.57, 0), "recompute": (0.57, 1)}
"""Share of a forward pass's projections, and of its attention, that the backward pass computes again: not of what only
leads out of a block."""
PREFIX_BYTES, PREFIX_GRADIENT_BYTES = 2, 4
"""Of a number of shared keys and values, in bfloat16; of its gradient, which is summed in float32."""
PREFIX_KEEPS = 1.55
"""Times what a token of compiled blocks keeps: the one pass over a prefix is not compiled (`benchmarks.gpu.prefix`)."""


@dataclass(frozen=True)
class Work:
    """What one update asks of each stage, in seconds of one GPU or in images, and what one GPU of it has to hold.

    Attributes:
        rollout_s: of the rollouts.
        judged: images that each judge scores.
        update_s: of the learner.
        rollout_gib: of a rollout worker.
        learner_gib: of a rank.
        warnings: what was not measured as it is asked for.
    """

    rollout_s: float
    judged: int
    update_s: float
    rollout_gib: float
    learner_gib: float
    warnings: tuple[str, ...]


def work_of(config: RunConfig, speed: GpuSpeeds) -> Work:
    """Return what an update of a run asks of each stage on a GPU of that kind."""
    size, passes = _architecture(config.editor), _passes(config)
    rate, of_rollouts = _rollout_rate(config, speed)
    projections, of_updates = _update_rate(config, speed)
    small = (
        ()
        if size.width >= SMALLEST_WIDTH
        else (f"the rates are those of 12 billion parameters; {config.editor.model!r} is too small to reach them",)
    )
    tokens = size.tokens(config.editor)
    judged = config.rollout.group_size + (0 if config.rollout.explore is None else config.rollout.candidates)
    groups = config.loop.groups_per_update
    path = passes * sum(size.forward_tflop(tokens))
    # What a group's paths share is computed once for each sweep over them.
    ahead = _texts(config) * sum(size.prefill_tflop(tokens))
    integrating_s = (config.rollout.group_size * path + ahead) / rate + _pool_seconds(config, speed)
    learning_s = _sweeps_s(config, size, tokens, speed) + _learning_s(config, size, tokens, speed, projections)
    return Work(
        rollout_s=groups * integrating_s / INTEGRATING,
        judged=groups * judged,
        update_s=groups * learning_s,
        rollout_gib=_rollout_gib(config, size, tokens),
        learner_gib=_learner_gib(config, size, tokens),
        warnings=(*small, *of_rollouts, *of_updates),
    )


def _sweeps_s(config: RunConfig, size: Architecture, tokens: Tokens, speed: GpuSpeeds) -> float:
    """Return the seconds in which a group's anchors find their paths, all at once."""
    objective, learner = config.objective, config.learner
    sweeps = learner.steps_per_rollout if config.loop.max_staleness > 0 or learner.steps_per_rollout > 1 else 0
    # On policy no path is found anew, whatever is asked for: what was rolled out is both.
    sweeps += 1 if sweeps and objective.old_path == "recompute" else 0
    # In the learner's precision, whatever the rollouts'.
    rate = speed.rollout["gemm" if learner.fp8 else "bfloat16"]
    step = objective.anchors * sum(size.forward_tflop(tokens)) / rate
    least, _ = _least_s(config, size, speed)
    ahead = _texts(config) * sum(size.prefill_tflop(tokens)) / rate
    return sweeps * (_passes(config) * max(step, least) + ahead)


def _learning_s(
    config: RunConfig, size: Architecture, tokens: Tokens, speed: GpuSpeeds, projections_rate: float
) -> float:
    """Return the seconds in which a group's anchors go forward and back, as many at a time as are asked for."""
    objective, learner = config.objective, config.learner
    times = [once + again for once, again in zip(FORWARD_AND_BACK, AGAIN[learner.activations], strict=True)]

    def seconds(projections: float, attention: float) -> float:
        return times[0] * projections / projections_rate + times[1] * attention / speed.update.attention

    together = min(learner.anchors_per_pass or objective.anchors, objective.anchors)
    full, rest = divmod(objective.anchors, together)
    one, (_, least) = seconds(*size.forward_tflop(tokens)), _least_s(config, size, speed)
    steps = full * max(together * one, least) + (max(rest * one, least) if rest else 0.0)
    ahead = _texts(config) * seconds(*size.prefill_tflop(tokens))
    return learner.steps_per_rollout * (_trained_passes(config) * steps + ahead)


def _least_s(config: RunConfig, size: Architecture, speed: GpuSpeeds) -> tuple[float, float]:
    """Return the seconds that a pass takes at least, forward, and forward and back."""
    forward, both = speed.sharded_block_s if config.learner.shards_weights else speed.block_s
    return size.layers * forward, size.layers * both


def _pool_seconds(config: RunConfig, speed: GpuSpeeds) -> float:
    """Return the seconds of one GPU that integrating one pool of ``rollout.explore`` takes; 0 without."""
    rollout = config.rollout
    if rollout.explore is None:
        return 0.0
    size = _architecture(config.editor)
    made = {"steps": rollout.exploring_steps, "fp8": rollout.fp8 or (rollout.explore.fp8 and "gemm" in speed.rollout)}
    pool = config.model_copy(update={"rollout": rollout.model_copy(update=made)})
    rate, _ = _rollout_rate(pool, speed)
    tokens = size.tokens(config.editor)
    passes = rollout.candidates * _passes(pool) * sum(size.forward_tflop(tokens))
    return (passes + _texts(pool) * sum(size.prefill_tflop(tokens))) / rate


def _rollout_gib(config: RunConfig, size: Architecture, tokens: Tokens) -> float:
    rollout = config.rollout
    beside = rollout.explore is not None and rollout.explore.fp8 and not rollout.fp8
    weights = size.parameters * ((1 if rollout.fp8 else 2) + (1 if beside else 0)) / GIB
    encoders = 0.0 if config.rollout.offload_encoders else size.encoders_gib
    candidates = config.rollout.group_size * tokens.total * ROLLOUT_MIB_PER_TOKEN / 1024
    return weights * 1.25 + encoders + candidates + _prefix_gib(config, size, tokens, PREFIX_BYTES)


def _learner_gib(config: RunConfig, size: Architecture, tokens: Tokens) -> float:
    settings, learner = config.editor.lora, config.learner
    shapes = lora.adapted(size.projections, settings.targets)
    trained = lora.count_parameters(shapes, settings.rank) * BYTES_PER_LORA_PARAMETER / GIB
    at_once = learner.anchors_per_pass or config.objective.anchors
    # A shared prefix has its activations once, however many anchors there are, and a sum of gradients beside it.
    held = at_once * (tokens.total - tokens.prefix) + PREFIX_KEEPS * _texts(config) * tokens.prefix
    mib_per_token = KEPT[learner.activations] * size.kept * size.layers * size.width * 2 / MIB
    shared = _prefix_gib(config, size, tokens, PREFIX_BYTES + PREFIX_GRADIENT_BYTES)
    return size.parameters * 2 / GIB + trained + held * mib_per_token / 1024 + shared


def _prefix_gib(config: RunConfig, size: Architecture, tokens: Tokens, each: int) -> float:
    """Return the GiB of the keys and values that passes share, at so many bytes a number."""
    return _texts(config) * 2 * size.layers * size.width * tokens.prefix * each / GIB


def _rollout_rate(config: RunConfig, speed: GpuSpeeds) -> tuple[float, list[str]]:
    fp8 = config.rollout.fp8
    wanted: Literal["bfloat16", "gemm", "all"] = "all" if fp8 == "all" else "gemm" if fp8 else "bfloat16"
    known = wanted if wanted in speed.rollout else "gemm" if wanted == "all" else "bfloat16"
    warnings = []
    if known != wanted:
        warnings.append(f"rollout.fp8={wanted} was not measured on this GPU; the rate of {known} is taken")
    if not config.editor.compile:
        warnings.append("the rates are those of compiled blocks, and editor.compile is off")
    return speed.rollout[known], warnings


def _update_rate(config: RunConfig, speed: GpuSpeeds) -> tuple[float, list[str]]:
    rates = speed.update
    if not config.learner.fp8:
        return rates.projections, []
    if rates.projections_fp8 is None:
        return rates.projections, [
            "updates in float8 (learner.fp8) were not measured on this GPU; bfloat16's rate is taken"
        ]
    return rates.projections_fp8, []


def _architecture(editor: EditorConfig) -> Architecture:
    """Return a model's sizes; a published one's are known without the hub, where its files may need a licence."""
    family = find(editor)
    model = family.hub_ids.get(editor.model, editor.model)
    return family.architecture(editor.model_copy(update={"model": model}))


def _passes(config: RunConfig) -> int:
    """Return the forward passes of a path through every step; classifier-free guidance takes two an evaluation."""
    return config.rollout.steps * (2 if config.rollout.solver == "heun" else 1) * _texts(config)


def _trained_passes(config: RunConfig) -> float:
    """Return those of the steps that are trained."""
    trained = config.objective.trained_steps
    return _passes(config) * (1.0 if trained is None else trained / config.rollout.steps)


def _texts(config: RunConfig) -> int:
    """Return the passes of an evaluation, one a text."""
    return 2 if is_two_passes(find(config.editor).guidance, config.editor.guidance) else 1


def learning_tflop(config: RunConfig) -> float:
    """Return the TFLOP that learning from one group takes by the method.

    Its anchors go through their trained steps, forward and backward, and what these share goes once. Whatever is
    computed again is time, not work.

    Raises:
        rc_grpo.editor.files.ModelNotFoundError: the editor's configuration files are not on this machine.
    """
    size = _architecture(config.editor)
    steps, tokens = config.objective.anchors * _trained_passes(config), size.tokens(config.editor)
    ahead = _texts(config) * anchor_step_tflop(*size.prefill_tflop(tokens))
    return config.learner.steps_per_rollout * (steps * anchor_step_tflop(*size.forward_tflop(tokens)) + ahead)


def anchor_step_tflop(projections: float, attention: float) -> float:
    """Return the TFLOP of one step forward and backward, from those of its forward pass."""
    return FORWARD_AND_BACK[0] * projections + FORWARD_AND_BACK[1] * attention


def memory_gib(config: RunConfig) -> dict[str, float]:
    """Return about how many GiB a rollout worker and a learner rank need, the base in bfloat16; none of a small model.

    What was measured was measured on models of billions of parameters.
    """
    size = _architecture(config.editor)
    if size.width < SMALLEST_WIDTH:
        return {}
    tokens = size.tokens(config.editor)
    needed = {"rollout worker": _rollout_gib(config, size, tokens)}
    return needed | ({"learner rank": _learner_gib(config, size, tokens)} if config.loop.learn else {})
