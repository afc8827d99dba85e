"""How long an update will take on so many GPUs, and how to split them: ``rc-grpo plan``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deploy.planning.hours import Hours, hours_of
from deploy.planning.speeds import GpuSpeeds, speeds
from deploy.planning.split import (
    LEARNER,
    CapacityError,
    Cards,
    cards_of,
    fastest,
    judges_a_gpu,
    parse_split,
    together,
    update_seconds,
)
from deploy.planning.work import Work, work_of
from rc_grpo.config import RunConfig
from rc_grpo.config.judges.served import ServedConfig
from rc_grpo.editor.guidance import is_two_passes
from rc_grpo.editor.registry import find

_WAYS = {
    "rollout": "set rollout.offload_encoders=true",
    "learner": "set learner.anchors_per_pass lower",
}


@dataclass(frozen=True)
class Pool:
    """One pool of the plan.

    Attributes:
        name: as in the configuration.
        gpus: it gets, maybe together with others.
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
        gpus: of all pools.
        gpu_type: of each.
        pools: in the order of the data's way.
        shared: names of pools that take turns on their GPUs.
        seconds: expected for an update.
        candidates_s: candidates a second over all pools.
        overlapped: pools work at the same time (``loop.max_staleness`` above 0).
        memory_gib: of one GPU.
        source: of the rates.
        hours: of the whole run.
        faster: the fastest split of as many GPUs and its seconds, where a slower one was asked for.
        warnings: what will not fit or is not known.
    """

    gpus: int
    gpu_type: str
    pools: tuple[Pool, ...]
    shared: tuple[tuple[str, ...], ...]
    seconds: float
    candidates_s: float
    overlapped: bool
    memory_gib: float
    source: str
    hours: Hours
    faster: tuple[str, float] | None = None
    warnings: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """What to pass by ``--set``."""
        return [pool.setting for pool in self.pools]


def make_plan(
    config: RunConfig, gpus: int | None, gpu_type: str, *, split: str | None = None, price: float | None = None
) -> Plan:
    """Say what an update will take.

    Args:
        config: of the run; pools that ask for no GPU stay as they are and take none.
        gpus: of the whole cluster, to be split so that an update takes least time; None are those of ``split``.
        gpu_type: a key of `speeds`.
        split: GPUs of each pool in the order of the data's way, as in ``5/1/2``, instead of the fastest; pools that
            share GPUs have one number.
        price: of a GPU for an hour, in any currency.

    Raises:
        CapacityError: there is no such type, fewer GPUs than kinds of work, or a split that is none of these GPUs.
    """
    known = speeds()
    if gpu_type not in known:
        raise CapacityError(f"no figures for --gpu-type {gpu_type!r}; there are some for {', '.join(known)}")
    speed = known[gpu_type]
    work = work_of(config, speed)
    judges = [name for name, judge in config.reward.judges.items() if judge.resources.num_gpus > 0]
    shared = together(config, ("rollout", *judges, LEARNER))
    servers = judges_a_gpu(config, shared)
    rates = {name: _judge_rate(speed, servers[name], alone=(name,) in shared) for name in judges}
    cards = cards_of(config, _stages(work, rates))
    overlapped = config.loop.max_staleness > 0
    wanted = None if split is None else parse_split(split, cards)
    count = gpus if gpus is not None else sum(wanted or ())
    if wanted is not None and sum(wanted) != count:
        raise CapacityError(f"--split {split} are {sum(wanted)} GPUs, and --gpus says {gpus}")
    best = fastest(cards, count, overlapped)
    taken = wanted or best
    update, quickest = (update_seconds(cards, one, overlapped) for one in (taken, best))
    pools = _pools(config, work, speed, cards, taken, servers)
    candidates = config.loop.groups_per_update * config.rollout.group_size
    exam = cards_of(config, _stages(work_of(_evaluating(config), speed), rates) | {LEARNER: 0.0})
    edits_s = max(one.seconds(share) for one, share in zip(exam, taken, strict=True))
    return Plan(
        gpus=count,
        gpu_type=gpu_type,
        pools=pools,
        shared=tuple(tuple(one.demands) for one in cards if len(one.demands) > 1),
        seconds=update,
        candidates_s=candidates / update,
        overlapped=overlapped,
        memory_gib=speed.memory_gib,
        source=speed.source,
        hours=hours_of(config, update_s=update, heldout_edit_s=edits_s / candidates, gpus=count, price=price),
        faster=("/".join(map(str, best)), quickest) if quickest < update * (1 - 1e-9) else None,
        warnings=(
            *work.warnings,
            *_cost_of_sources(config, speed, work),
            *_cost_of_guidance(config, speed),
            *_cost_of_exploring(config, speed, work),
            *_too_large(pools, cards, speed),
            *_idle(cards, taken),
        ),
    )


def _judge_rate(speed: GpuSpeeds, servers: float, *, alone: bool) -> float:
    """Return the images a second of a judge's GPU: of more servers than were measured, as of the most that were.

    A second server fills time in which the GPU has nothing to do, of which there is none beside other work.
    """
    if servers < 1 or not alone:
        return min(servers, 1.0) * speed.judge_images_s[0]
    return speed.judge_images_s[min(int(servers), len(speed.judge_images_s)) - 1]


def _stages(work: Work, judges: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of one GPU that each stage works on an update's groups, in the order of the data's way."""
    judged = {name: work.judged / rate for name, rate in judges.items()}
    return {"rollout": work.rollout_s, **judged, LEARNER: work.update_s}


def _pools(
    config: RunConfig,
    work: Work,
    speed: GpuSpeeds,
    cards: Sequence[Cards],
    split: Sequence[int],
    servers: Mapping[str, float],
) -> tuple[Pool, ...]:
    memory = {"rollout": work.rollout_gib, "learner": work.learner_gib}
    for name, judge in config.reward.judges.items():
        if isinstance(judge, ServedConfig) and not judge.urls:
            memory[name] = judge.server.gpu_memory_utilization * speed.memory_gib * max(1.0, servers.get(name, 1.0))
    settings = {"rollout": "rollout.workers", "learner": "learner.ranks"}

    def size(name: str, gpus: int) -> str:
        key = settings.get(name, f"reward.judges.{name}.workers")
        return f"{key}={max(1, int(gpus * servers.get(name, 1.0)))}"

    found = {
        name: Pool(name, gpus, one.seconds(gpus, [name]), memory.get(name), size(name, gpus))
        for one, gpus in zip(cards, split, strict=True)
        for name in one.demands
    }
    return tuple(found[name] for name in ("rollout", *config.reward.judges, "learner") if name in found)


def _too_large(pools: Sequence[Pool], cards: Sequence[Cards], speed: GpuSpeeds) -> list[str]:
    """Say which GPUs have too little memory for what is on them."""
    needed = {pool.name: pool.memory_gib or 0.0 for pool in pools}
    said = []
    for one in cards:
        total = sum(needed[name] for name in one.demands)
        if total > speed.memory_gib:
            needs = "needs" if len(one.demands) == 1 else "need"
            ways = [
                _WAYS.get(name, f"set reward.judges.{name}.server.gpu_memory_utilization lower") for name in one.demands
            ]
            said.append(f"{one.name} {needs} {total:.0f} GiB of the GPU's {speed.memory_gib:.0f}: {' or '.join(ways)}")
    return said


def _idle(cards: Sequence[Cards], split: Sequence[int]) -> list[str]:
    return [
        f"{gpus - one.most} of {gpus} GPUs of {one.name} have nothing to do: an update keeps {one.most} busy"
        for one, gpus in zip(cards, split, strict=True)
        if gpus > one.most
    ]


def _evaluating(config: RunConfig) -> RunConfig:
    """Return the configuration whose candidates cost what held-out edits do."""
    rollout = config.rollout.model_copy(update={"steps": config.evaluation.steps})
    return config.model_copy(update={"editor": config.evaluated, "rollout": rollout})


def _cost_of_guidance(config: RunConfig, speed: GpuSpeeds) -> list[str]:
    """Say what the second pass of classifier-free guidance costs an update, where the family has one."""
    if find(config.editor).guidance != "cfg":
        return []
    editors = [config.editor.model_copy(update={"guidance": scale}) for scale in (1.0, 2.0)]
    one, two = (work_of(config.model_copy(update={"editor": editor}), speed) for editor in editors)
    is_two = is_two_passes("cfg", config.editor.guidance)
    spent, other = (two, one) if is_two else (one, two)
    passes = "two passes" if is_two else "one pass"
    way = "editor.guidance=1 with evaluation.guidance above 1" if is_two else "an editor.guidance above 1"
    return [
        f"guidance {config.editor.guidance:g} is {passes} an evaluation: an update takes "
        f"{spent.rollout_s:,.0f} GPU seconds of rollouts and {spent.update_s:,.0f} of learning; {way} would take "
        f"{other.rollout_s:,.0f} and {other.update_s:,.0f}"
    ]


def _cost_of_sources(config: RunConfig, speed: GpuSpeeds, several: Work) -> list[str]:
    """Say what references cost beside tasks of one source."""
    editor, family = config.editor, find(config.editor)
    if editor.sources == 1:
        return []
    if editor.sources > family.sources:
        return [f"{editor.model} is of a family that takes {family.sources} source image a task at most"]
    alone = work_of(config.model_copy(update={"editor": editor.model_copy(update={"sources": 1})}), speed)
    return [
        f"every task is taken to have {editor.sources} sources; with one an update would take {alone.rollout_s:,.0f} "
        f"instead of {several.rollout_s:,.0f} GPU seconds of rollouts, and {alone.update_s:,.0f} instead of "
        f"{several.update_s:,.0f} of learning"
    ]


def _cost_of_exploring(config: RunConfig, speed: GpuSpeeds, both: Work) -> list[str]:
    """Say what pools cost beside groups that are made as they are."""
    rollout = config.rollout
    if rollout.explore is None:
        return []
    alone = work_of(config.model_copy(update={"rollout": rollout.model_copy(update={"explore": None})}), speed)
    return [
        f"exploring {rollout.candidates} candidates in {rollout.exploring_steps} of {rollout.steps} steps takes, with "
        f"the {rollout.group_size} exact ones, {rollout.explore_cost:.2f} times the operations of those alone, "
        f"{both.rollout_s / alone.rollout_s:.2f} times their time and {both.judged / alone.judged:.1f} times the "
        "judgements"
    ]
