"""The figures beside `metrics.jsonl`'s: of a batch as it is learned from, and of a run at this moment."""

import time
from collections.abc import Mapping, Sequence

from deploy.planning.work import learning_tflop
from deploy.watching.snapshot import Snapshot
from rc_grpo.config import RunConfig
from rc_grpo.editor.files import ModelNotFoundError
from rc_grpo.messages import ScoredGroup
from rc_grpo.waiting import Wait


def group_flop(config: RunConfig) -> float | None:
    """Return the floating-point operations that learning from one group takes by the method.

    None where the editor's configuration files are not on this machine: only learner and rollout workers need them.
    """
    try:
        return learning_tflop(config) * 1e12
    except ModelNotFoundError:
        return None


def of_batch(
    batch: Sequence[ScoredGroup], metrics: Mapping[str, float], flop: float | None, ranks: int
) -> dict[str, float]:
    """Return the figures of a batch that was learned from.

    Args:
        batch: the groups.
        metrics: of the update, as `metrics.jsonl` gets them.
        flop: that one group takes, see `group_flop`; None where it is not known.
        ranks: of the learner.
    """
    figures = {
        "batch/updates": 1.0,
        "batch/groups": float(len(batch)),
        "batch/candidates": float(sum(scored.scores.task_reward.size for scored in batch)),
    }
    if flop is not None and (seconds := metrics.get("update/seconds", 0.0)) > 0:
        learned = len(batch) * (1.0 - metrics["groups_skipped/share"])
        figures["batch/flop_per_second"] = learned * flop / (ranks * seconds)
    return figures


def of_run(run: Snapshot) -> dict[str, float]:
    """Return what a run does at this moment."""
    loop = run.config.loop
    figures: dict[str, float] = {
        "run/done": run.done,
        "run/planned": loop.updates,
        "run/staleness_bound": loop.max_staleness,
        "learner/ranks": run.config.learner.ranks if loop.learn else 0,
        "learner/losses": run.losses,
    }
    if run.version is not None:
        figures["version"] = run.version.number
    figures |= {f"ledger/{state}": count for state, count in run.groups.items()}
    for who in ("run", "batches", "learner"):
        figures |= _waits(who, run.waits[who])
    for pool in run.pools:
        figures |= {f"pool/{pool.role}_{name}": value for name, value in pool.summary.items()}
        # A call that waits for a worker has no deadline of its own; one that a worker has, does.
        queued = [wait for wait in run.waits[pool.role] if wait.deadline_s is None]
        figures[f"queue/{pool.role}"] = _oldest(queued)
        figures |= _waits(pool.role, [wait for wait in run.waits[pool.role] if wait.deadline_s is not None])
        figures |= {f"version/{name}": proof.version for name, proof in pool.proofs.items()}
        figures |= {f"sync/{name}": seconds for name, seconds in pool.sync_seconds.items()}
    return figures


def _waits(role: str, waits: Sequence[Wait]) -> dict[str, float]:
    now = time.monotonic()
    shares = [(now - wait.since) / wait.deadline_s for wait in waits if wait.deadline_s]
    return {f"wait/{role}": _oldest(waits), f"wait/{role}/deadline": max(shares, default=0.0)}


def _oldest(waits: Sequence[Wait]) -> float:
    now = time.monotonic()
    return max((now - wait.since for wait in waits), default=0.0)
