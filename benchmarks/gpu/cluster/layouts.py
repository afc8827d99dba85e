"""Who gets which GPU: the layouts of each number of GPUs, as overrides of a packaged configuration."""

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu import judge_of_full_size
from rc_grpo.editor.files import FULL_SIZE

_SHORT = ("evaluation.tasks=0", "output.experience=scores", "output.grid_every=1000", "output.checkpoint_every=1000")
"""Of runs of some updates."""
_SHARDED = ("learner.zero_stage=3", "learner.anchors_per_pass=null", "rollout.fp8=true", "objective.old_path=recompute")
"""ZeRO 3 beside rollouts in float8: what a learner recomputes its path with is what it shards. What a pass fetches does
not depend on how many anchors go through it."""


@dataclass(frozen=True)
class Layout:
    """One split.

    Attributes:
        name: in figures.
        split: as ``rc-grpo plan --split`` takes it.
        overrides: that make it.
        judge: more of them, of servers with a model of seven billion parameters; with none measures judge that
            need no GPU.
    """

    name: str
    split: str
    overrides: tuple[str, ...]
    judge: tuple[str, ...] = ()


def layouts(gpus: int) -> tuple[Layout, ...]:
    """Return the layouts of so many GPUs.

    The first has a judge's server, the last of several has several NCCL ranks; of four and more, the second is that of
    two GPUs several times over.

    Raises:
        ValueError: there are none of that number.
    """
    found = {
        1: (Layout("one card", "1", (), _judge_share(0.26, kv_cache_gib=1.5)),),
        2: (
            _apart(1),
            _layout("ranks", "2", rollout=(2, 0.4), judge=None, learner=(2, 0.6)),
        ),
        4: (
            _layout("one rank", "2/1/1", rollout=(2, 1.0), judge=(2, 0.5), learner=(1, 1.0)),
            _apart(2),
            _layout("ranks", "1/1/2", rollout=(1, 1.0), judge=(2, 0.5), learner=(2, 1.0), more=_SHARDED),
        ),
        8: (
            _layout("packaged", "3/1/4", rollout=(3, 1.0), judge=(2, 0.5), learner=(4, 1.0)),
            _apart(4),
            _layout("earlier", "5/1/2", rollout=(5, 1.0), judge=(2, 0.5), learner=(2, 1.0)),
        ),
    }
    if gpus not in found:
        raise ValueError(f"there are layouts of {', '.join(map(str, found))} GPUs, none of {gpus}")
    return found[gpus]


def _apart(pairs: int) -> Layout:
    """Return a layout of pairs of GPUs: one rolls out, the other learns with two judges beside it."""
    name = "apart" if pairs == 1 else f"{pairs} times apart"
    return _layout(name, f"{pairs}/{pairs}", rollout=(pairs, 1.0), judge=(2 * pairs, 0.2), learner=(pairs, 0.6))


def _layout(
    name: str,
    split: str,
    *,
    rollout: tuple[int, float],
    judge: tuple[int, float] | None,
    learner: tuple[int, float],
    more: tuple[str, ...] = (),
) -> Layout:
    """Return a layout of pools of so many actors with so much of a GPU each."""
    pools = {"rollout": ("workers", rollout), "learner": ("ranks", learner)}
    sized = [f"{pool}.{size}={count}" for pool, (size, (count, _)) in pools.items()]
    sized += [f"{pool}.resources={{num_gpus: {part}, num_cpus: 2}}" for pool, (_, (_, part)) in pools.items()]
    judged = () if judge is None else (f"reward.judges.editscore.workers={judge[0]}", *_judge_share(judge[1]))
    return Layout(name, split, (*sized, *more), judged)


def _judge_share(part: float, kv_cache_gib: float = 4) -> tuple[str, ...]:
    judge = "reward.judges.editscore"
    return (
        f"{judge}.resources={{num_gpus: {part}, num_cpus: 2}}",
        f"{judge}.server.gpu_memory_utilization={part * 0.9}",
        # Beside fifteen of weights; vLLM's own measurement of what is left would count what starts beside it.
        f"{judge}.server.kv_cache_gib={kv_cache_gib}",
    )


def full_size(layout: Layout, judge: Path, python: str) -> tuple[str, ...]:
    """Return the overrides of a packaged configuration of FLUX.1 Kontext that need no weights and no data.

    Args:
        layout: of the GPUs.
        judge: folder of a judge that needs no weights.
        python: interpreter that has vLLM.
    """
    served = {
        "kind": "editscore",
        "model": str(judge),
        "family": "qwen2_5_vl",
        "groups_in_flight": 8,
        # Random weights do not come to an end by themselves.
        "reasoning_characters": judge_of_full_size.REASONING,
        "server": {
            "python": python,
            "max_num_seqs": 96,
            "start_deadline_s": 400,
            "arguments": judge_of_full_size.ARGUMENTS,
            "environment": judge_of_full_size.ENVIRONMENT,
        },
    }
    # What random weights paint is often alike to the last pixel where the truth is; where it is not, hardly ever.
    on_the_cpu = {"resources": {"num_cpus": 1}}
    measures = {
        "ground_truth": {"kind": "ground_truth", **on_the_cpu},
        "region_preservation": {"kind": "region_preservation", "measure": "pixels", **on_the_cpu},
    }
    judges = {"editscore": served} if layout.judge else measures
    return (
        f"editor.model={FULL_SIZE}",
        "data.train={format: pocket, split: train, limit: 64}",
        "data.heldout=null",
        f"reward.judges={json.dumps(judges)}",
        "cluster={address: null, dashboard: false}",
        *_SHORT,
        *layout.overrides,
        *layout.judge,
    )


def small(layout: Layout) -> tuple[str, ...]:
    """Return overrides of ``pocket`` in the same shape, to try the script where there is no GPU."""
    kept = [one for one in layout.overrides if not any(of_gpus in one for of_gpus in ("num_gpus", "fp8"))]
    return (
        "rollout.group_size=3",
        "rollout.steps=2",
        "objective.anchors=2",
        "data.train.limit=12",
        "cluster={address: null, dashboard: false, cpus: 8}",
        *_SHORT,
        *kept,
    )
