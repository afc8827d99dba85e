"""How long an update will take on so many GPUs, and how to split them: ``rc-grpo plan``.

Arithmetic on measured rates (`speeds.yaml`): the method's operations over what a GPU of that type was seen to do with
them. Nothing is loaded and no cluster is asked.
"""

from dataclasses import dataclass
from typing import Literal

from deploy.planning.hours import Hours, hours_of
from deploy.planning.speeds import GpuSpeeds, UpdateSpeed, speeds
from rc_grpo.config import EditorConfig, RunConfig
from rc_grpo.editor import lora
from rc_grpo.editor.family import Architecture, Tokens
from rc_grpo.editor.guidance import is_two_passes
from rc_grpo.editor.registry import find

GIB = 2**30
ROLLOUT_MIB_PER_TOKEN = 0.25
"""An upper bound: the widest that a block holds of a token at a time, with room for the kernels' workspace."""
SMALLEST_WIDTH = 1024
"""Below it a model does not fill a GPU, and rates measured on 12 billion parameters say nothing about it."""
BYTES_PER_LORA_PARAMETER = 16
"""float32 weight, gradient and AdamW's two moments."""


class CapacityError(ValueError):
    """The plan that is asked for cannot be made."""


@dataclass(frozen=True)
class Pool:
    """One pool of the plan.

    Attributes:
        name: as in the configuration.
        gpus: it gets.
        seconds: it works on one update's groups.
        memory_gib: that one GPU of it needs, as far as is known.
        setting: what to write into the configuration.
    """

    name: str
    gpus: int
    seconds: float
    memory_gib: float | None
    setting: str


@dataclass(frozen=True)
class Plan:
    """A split of GPUs into pools.

    Attributes:
        pools: in the order of the data's way.
        seconds: expected for an update.
        candidates_s: candidates a second over all pools.
        overlapped: pools work at the same time (``loop.max_staleness`` above 0).
        memory_gib: of one GPU.
        source: of the rates.
        hours: of the whole run.
        warnings: what will not fit or is not known.
    """

    pools: tuple[Pool, ...]
    seconds: float
    candidates_s: float
    overlapped: bool
    memory_gib: float
    source: str
    hours: Hours
    warnings: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """What to pass by ``--set``."""
        return [pool.setting for pool in self.pools]


def make_plan(config: RunConfig, gpus: int, gpu_type: str) -> Plan:
    """Split ``gpus`` so that an update takes least time.

    Args:
        config: of the run; pools that ask for no GPU stay as they are and take none.
        gpus: of the whole cluster.
        gpu_type: a key of `speeds`.

    Raises:
        CapacityError: there is no such type, or there are fewer GPUs than pools that need one.
    """
    known = speeds()
    if gpu_type not in known:
        raise CapacityError(f"no figures for --gpu-type {gpu_type!r}; there are some for {', '.join(known)}")
    speed = known[gpu_type]
    work = _work(config, speed)
    judges = [name for name, judge in config.reward.judges.items() if judge.resources.num_gpus > 0]
    stages = {"rollout": work.rollout_s, **dict.fromkeys(judges, work.judge_s), "learner": work.update_s}
    if gpus < len(stages):
        raise CapacityError(f"--gpus {gpus} is too few: {', '.join(stages)} need one each")
    overlapped = config.loop.max_staleness > 0
    share = _split(stages, gpus, config.loop.groups_per_update, overlapped)
    seconds = {name: demand / share[name] for name, demand in stages.items()}
    update = _update_seconds(seconds, overlapped)
    memory = {"rollout": work.rollout_gib, "learner": work.learner_gib}
    settings = {"rollout": "rollout.workers", "learner": "learner.ranks"}
    pools = tuple(
        Pool(
            name,
            share[name],
            seconds[name],
            memory.get(name),
            f"{settings.get(name, f'reward.judges.{name}.workers')}={share[name]}",
        )
        for name in stages
    )
    candidates = config.loop.groups_per_update * config.rollout.group_size
    warnings = [*work.warnings, *_cost_of_guidance(config, speed), *_cost_of_exploring(config, speed)]
    warnings += [
        f"{pool.name} needs {pool.memory_gib:.0f} GiB of the GPU's {speed.memory_gib:.0f}: "
        + ("set learner.anchors_per_pass lower" if pool.name == "learner" else "set rollout.offload_encoders=true")
        for pool in pools
        if pool.memory_gib is not None and pool.memory_gib > speed.memory_gib
    ]
    exam = _work(_evaluating(config), speed)
    edits_s = max(exam.rollout_s / share["rollout"], *(exam.judge_s / share[name] for name in judges), 0.0)
    hours = hours_of(config, update_s=update, heldout_edit_s=edits_s / candidates, gpus=gpus)
    return Plan(pools, update, candidates / update, overlapped, speed.memory_gib, speed.source, hours, tuple(warnings))


def memory_gib(config: RunConfig) -> dict[str, float]:
    """Return about how many GiB a rollout worker and a learner rank need, the base in bfloat16; none of a small model.

    What was measured was measured on models of billions of parameters.
    """
    size = _architecture(config.editor)
    if size.width < SMALLEST_WIDTH:
        return {}
    tokens = size.tokens(config.editor)
    update, _ = _update_speed(config, speeds()["H200"])
    needed = {"rollout worker": _rollout_gib(config, size, tokens)}
    return needed | ({"learner rank": _learner_gib(config, size, tokens, update)} if config.loop.learn else {})


@dataclass(frozen=True)
class _Work:
    """What one update asks of each stage, in seconds of one GPU, and what one GPU of it has to hold.

    Attributes:
        rollout_s: of the rollouts.
        judge_s: of a judge.
        update_s: of the learner.
        rollout_gib: of a rollout worker.
        learner_gib: of a rank.
        warnings: what was not measured as it is asked for.
    """

    rollout_s: float
    judge_s: float
    update_s: float
    rollout_gib: float
    learner_gib: float
    warnings: tuple[str, ...]


def _work(config: RunConfig, speed: GpuSpeeds) -> _Work:
    size, passes = _architecture(config.editor), _passes(config)
    rate, of_rollouts = _rollout_rate(config, speed)
    update, of_updates = _update_speed(config, speed)
    small = (
        ()
        if size.width >= SMALLEST_WIDTH
        else (f"the rates are those of 12 billion parameters; {config.editor.model!r} is too small to reach them",)
    )
    tokens = size.tokens(config.editor)
    judged = config.rollout.group_size + (0 if config.rollout.explore is None else config.rollout.candidates)
    groups, objective, learner = config.loop.groups_per_update, config.objective, config.learner
    path_s = passes * sum(size.forward_tflop(tokens)) / rate
    anchors = groups * objective.anchors
    swept = anchors * learner.steps_per_rollout if config.loop.max_staleness > 0 or learner.steps_per_rollout > 1 else 0
    swept += anchors if objective.old_path == "recompute" else 0
    return _Work(
        rollout_s=groups * (config.rollout.group_size * path_s + _pool_seconds(config, speed)),
        judge_s=groups * judged / speed.judge_images_s,
        update_s=groups * learning_tflop(config) / update.tflop_s + swept * path_s,
        rollout_gib=_rollout_gib(config, size, tokens),
        learner_gib=_learner_gib(config, size, tokens, update),
        warnings=(*small, *of_rollouts, *of_updates),
    )


def _evaluating(config: RunConfig) -> RunConfig:
    """Return the configuration whose candidates cost what held-out edits do."""
    rollout = config.rollout.model_copy(update={"steps": config.evaluation.steps})
    return config.model_copy(update={"editor": config.evaluated, "rollout": rollout})


def _cost_of_guidance(config: RunConfig, speed: GpuSpeeds) -> list[str]:
    """Say what the second pass of classifier-free guidance costs an update, where the family has one."""
    if find(config.editor).guidance != "cfg":
        return []
    editors = [config.editor.model_copy(update={"guidance": scale}) for scale in (1.0, 2.0)]
    one, two = (_work(config.model_copy(update={"editor": editor}), speed) for editor in editors)
    is_two = is_two_passes("cfg", config.editor.guidance)
    spent, other = (two, one) if is_two else (one, two)
    passes = "two passes" if is_two else "one pass"
    way = "editor.guidance=1 with evaluation.guidance above 1" if is_two else "an editor.guidance above 1"
    return [
        f"guidance {config.editor.guidance:g} is {passes} an evaluation: an update takes "
        f"{spent.rollout_s:,.0f} GPU seconds of rollouts and {spent.update_s:,.0f} of learning; {way} would take "
        f"{other.rollout_s:,.0f} and {other.update_s:,.0f}"
    ]


def _pool_seconds(config: RunConfig, speed: GpuSpeeds) -> float:
    """Return the seconds of one GPU that making one pool of ``rollout.explore`` takes; 0 without."""
    rollout = config.rollout
    if rollout.explore is None:
        return 0.0
    size = _architecture(config.editor)
    made = {"steps": rollout.exploring_steps, "fp8": rollout.fp8 or (rollout.explore.fp8 and "fp8" in speed.rollout)}
    pool = config.model_copy(update={"rollout": rollout.model_copy(update=made)})
    rate, _ = _rollout_rate(pool, speed)
    return rollout.candidates * _passes(pool) * sum(size.forward_tflop(size.tokens(config.editor))) / rate


def _cost_of_exploring(config: RunConfig, speed: GpuSpeeds) -> list[str]:
    """Say what pools cost beside groups that are made as they are."""
    rollout = config.rollout
    if rollout.explore is None:
        return []
    alone = _work(config.model_copy(update={"rollout": rollout.model_copy(update={"explore": None})}), speed)
    both = _work(config, speed)
    return [
        f"exploring {rollout.candidates} candidates in {rollout.exploring_steps} of {rollout.steps} steps takes, with "
        f"the {rollout.group_size} exact ones, {rollout.explore_cost:.2f} times the operations of those alone, "
        f"{both.rollout_s / alone.rollout_s:.2f} times their time and {both.judge_s / alone.judge_s:.1f} times the "
        "judgements"
    ]


def _rollout_gib(config: RunConfig, size: Architecture, tokens: Tokens) -> float:
    rollout = config.rollout
    beside = rollout.explore is not None and rollout.explore.fp8 and not rollout.fp8
    weights = size.parameters * ((1 if rollout.fp8 else 2) + (1 if beside else 0)) / GIB
    encoders = 0.0 if config.rollout.offload_encoders else size.encoders_gib
    return weights * 1.25 + encoders + config.rollout.group_size * tokens.total * ROLLOUT_MIB_PER_TOKEN / 1024


def _learner_gib(config: RunConfig, size: Architecture, tokens: Tokens, update: UpdateSpeed) -> float:
    settings, learner = config.editor.lora, config.learner
    shapes = lora.adapted(size.projections, settings.targets)
    trained = lora.count_parameters(shapes, settings.rank) * BYTES_PER_LORA_PARAMETER / GIB
    at_once = learner.anchors_per_pass or config.objective.anchors
    return size.parameters * 2 / GIB + trained + at_once * tokens.total * update.mib_per_token / 1024


def _rollout_rate(config: RunConfig, speed: GpuSpeeds) -> tuple[float, list[str]]:
    wanted: Literal["fp8", "bfloat16"] = "fp8" if config.rollout.fp8 else "bfloat16"
    warnings = []
    if wanted not in speed.rollout:
        warnings.append(f"rollouts in {wanted} were not measured on this GPU; bfloat16's rate is taken")
    if not config.editor.compile:
        warnings.append("the rates are those of compiled blocks, and editor.compile is off")
    return speed.rollout.get(wanted, speed.rollout["bfloat16"]), warnings


def _update_speed(config: RunConfig, speed: GpuSpeeds) -> tuple[UpdateSpeed, list[str]]:
    wanted = config.learner.activations
    warnings = []
    if wanted not in speed.update:
        warnings.append(f"learner.activations `{wanted}` was not measured on this GPU; `store` is taken")
    return speed.update.get(wanted, speed.update["store"]), warnings


def _architecture(editor: EditorConfig) -> Architecture:
    """Return a model's sizes; a published one's are known without the hub, where its files may need a licence."""
    family = find(editor)
    model = family.hub_ids.get(editor.model, editor.model)
    return family.architecture(editor.model_copy(update={"model": model}))


def _passes(config: RunConfig) -> int:
    """Return the forward passes of a path through every step; classifier-free guidance takes two an evaluation."""
    guided = is_two_passes(find(config.editor).guidance, config.editor.guidance)
    evaluations = config.rollout.steps * (2 if config.rollout.solver == "heun" else 1)
    return evaluations * (2 if guided else 1)


def learning_tflop(config: RunConfig) -> float:
    """Return the TFLOP that learning from one group takes by the method.

    Its anchors go through their trained steps, forward and backward. Whatever is computed again is time, not work.

    Raises:
        rc_grpo.editor.files.ModelNotFoundError: the editor's configuration files are not on this machine.
    """
    size, objective = _architecture(config.editor), config.objective
    share = 1.0 if objective.trained_steps is None else objective.trained_steps / config.rollout.steps
    steps = objective.anchors * share * _passes(config) * config.learner.steps_per_rollout
    return steps * anchor_step_tflop(*size.forward_tflop(size.tokens(config.editor)))


def anchor_step_tflop(projections: float, attention: float) -> float:
    """Return the TFLOP of one step forward and backward, from those of its forward pass.

    Frozen projections pass on one gradient, that of their inputs; attention's backward pass is two and a half times its
    forward.
    """
    return 2 * projections + 3.5 * attention


def _split(stages: dict[str, float], gpus: int, groups: int, overlapped: bool) -> dict[str, int]:
    """Return the split with the shortest update."""
    if overlapped:
        return _balanced(stages, gpus, groups)
    others = {name: demand for name, demand in stages.items() if name != "learner"}
    splits = [
        _balanced(others, gpus - ranks, groups) | {"learner": ranks} for ranks in range(1, gpus - len(others) + 1)
    ]

    def seconds(share: dict[str, int]) -> float:
        return _update_seconds({name: demand / share[name] for name, demand in stages.items()}, overlapped)

    return min(splits, key=seconds)


def _balanced(stages: dict[str, float], gpus: int, groups: int) -> dict[str, int]:
    """Give every stage a GPU, then each further one to the slowest: no other split has a faster slowest stage."""
    share = dict.fromkeys(stages, 1)
    for _ in range(gpus - len(stages)):
        # A whole group goes to one worker: more workers than groups would idle.
        useful = [name for name in stages if share[name] < groups] or list(stages)
        share[max(useful, key=lambda name: stages[name] / share[name])] += 1
    return share


def _update_seconds(seconds: dict[str, float], overlapped: bool) -> float:
    if overlapped:
        return max(seconds.values())
    # A group is judged while the next is rolled out; the learner begins when all are there.
    return max(value for name, value in seconds.items() if name != "learner") + seconds["learner"]
