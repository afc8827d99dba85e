"""What is measured of an update, and where it is written: JSON lines, TensorBoard, trackers; the names are the same."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from deploy.records.folder import Count
from deploy.tracking.trackers import Trackers
from learner.group import UpdateReport
from rc_grpo.durable import write_whole
from rc_grpo.kept import DamagedFileError, Form, damaged, parse_json, read_bytes
from rc_grpo.messages import GroupScores, ScoredGroup
from rollout_workers.pool import RolloutPool

METRICS = "metrics.jsonl"
_WAY_OUT = "bring it back from a copy"


class _Line(Form):
    update: Count
    event: str | None = None


def batch_metrics(batch: Sequence[ScoredGroup], report: UpdateReport) -> dict[str, float]:
    """Return the statistics of a batch: rewards and their spread, background drift, ACD, staleness, failures."""
    task = np.stack([scored.scores.task_reward for scored in batch])
    acd = np.stack([scored.scores.acd_reward for scored in batch])
    drift = np.array([scored.receipt.background_drift for scored in batch])
    ages = [report.version.number - scored.receipt.policy.number for scored in batch]
    metrics = {
        "reward/task_mean": _mean(task),
        "reward/task_within_group_std": _within_group_std(task),
        "reward/reference_candidate": _mean(task[:, 0]),
        "reward/failed_scores": float(sum(scored.scores.failed for scored in batch)),
        "reward/judge_attempts_max": float(max(scored.scores.attempts for scored in batch)),
        "reward/judge_latency_seconds": float(np.mean([scored.scores.latency for scored in batch])),
        "background_drift/mean": float(drift.mean()),
        "background_drift/within_group_std": float(drift.std(axis=1).mean()),
        "diversity/mean": float(np.mean([scored.receipt.diversity for scored in batch])),
        "staleness/mean": float(np.mean(ages)),
        "staleness/max": float(max(ages)),
        "groups_skipped/share": sum(reason is not None for reason in report.skipped) / len(batch),
    }
    if pruned := sum(len(scored.scores.pruned) for scored in batch):
        metrics["reward/pruned"] = float(pruned)
    if not np.isnan(acd).all():
        metrics |= {"acd/mean": _mean(acd), "acd/within_group_std": _within_group_std(acd)}
    for name in sorted({name for scored in batch for name in scored.scores.rewards}):
        judged = np.stack([scored.scores.rewards[name] for scored in batch])
        metrics |= {
            f"reward/{name}_mean": _mean(judged),
            f"reward/{name}_within_group_std": _within_group_std(judged),
            f"reward/{name}_failed_scores": float(np.isnan(judged).sum() - pruned),
        }
    for name in sorted({name for scored in batch for name in scored.scores.subscores}):
        values = [scored.scores.subscores[name] for scored in batch if name in scored.scores.subscores]
        metrics[f"judge/{name.replace('.', '/')}"] = _mean(np.concatenate(values))
    for part in sorted({part for scored in batch for part in scored.receipt.seconds}):
        metrics[f"rollout_seconds/{part}"] = float(np.mean([scored.receipt.seconds[part] for scored in batch]))
    return metrics | explore_metrics([scored.scores for scored in batch]) | report.metrics


def explore_metrics(batch: Sequence[GroupScores]) -> dict[str, float]:
    """Return what the pools of a batch were like, and how far cheap scores foretold exact ones; empty without pools.

    Of each judge the ``shift`` is the mean of exact minus explored rewards over the groups, and the ``agreement`` the
    mean over groups of their correlation within a group.
    """
    pairs = [(scores, pool) for scores in batch if (pool := scores.explored) is not None]
    if not pairs:
        return {}
    unscored = sum(int(np.any([np.isnan(own) for own in pool.rewards.values()], axis=0).sum()) for _, pool in pairs)
    pruned = sum(len(pool.pruned) for _, pool in pairs)
    metrics = {
        "explore/candidates": float(sum(pool.size for _, pool in pairs)),
        "explore/failed_scores": float(unscored - pruned),
        "explore/pruned": float(pruned),
    }
    for name in pairs[0][1].rewards:
        exact = np.stack([scores.rewards[name] for scores, _ in pairs])
        cheap = np.stack([pool.rewards[name][list(pool.chosen)] for _, pool in pairs])
        metrics[f"explore/{name}_shift"] = _mean(exact - cheap)
        metrics[f"explore/{name}_agreement"] = _mean(np.array([*map(_correlation, exact, cheap)]))
    return metrics


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    both = ~np.isnan(one) & ~np.isnan(other)
    if both.sum() < 2 or np.ptp(one[both]) == 0 or np.ptp(other[both]) == 0:
        return math.nan
    return float(np.corrcoef(one[both], other[both])[0, 1])


def pace_metrics(
    seconds: float, waited: Mapping[str, float], groups: Mapping[str, int], rollouts: RolloutPool
) -> dict[str, float]:
    """Return how an update went by the clock: its time, what of it was waiting, how far groups and versions are.

    Args:
        seconds: since the update before.
        waited: seconds of these, by what the learner waited for.
        groups: what became of the run's groups so far, by name.
        rollouts: whose workers prove the versions.
    """
    waits = {f"seconds/waiting_for_{what}": value for what, value in waited.items()}
    return {
        "seconds/update_total": seconds,
        "seconds/waiting_for_groups": sum(waits.values()),
        "seconds/version_to_proof_max": max(rollouts.sync_seconds.values(), default=math.nan),
        "policy/canary_shift": max((proof.canary_shift for proof in rollouts.proofs.values()), default=math.nan),
        **waits,
        **{f"ledger/{name}": float(count) for name, count in groups.items()},
    }


class BusyShares:
    """What pools did since they were last asked about: their statistics, and how much of the time they worked."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._busy: dict[str, float] = {}

    def shares(self, pools: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """Return each pool's statistics as metrics, and ``busy_share``: of its workers' time, since the last call."""
        now = time.monotonic()
        seconds, self._asked = max(now - self._asked, 1e-9), now
        found: dict[str, float] = {}
        for role, summary in pools.items():
            found |= {f"pool/{role}_{name}": float(value) for name, value in summary.items()}
            worked = summary["busy_seconds"] - self._busy.get(role, 0.0)
            self._busy[role] = summary["busy_seconds"]
            found[f"pool/{role}_busy_share"] = worked / (seconds * max(1.0, summary["workers"]))
        return found


class MetricsLog:
    """Appends metrics to ``metrics.jsonl`` and TensorBoard event files, and passes them on to trackers.

    Args:
        folder: of the run.
        trackers: open ones; none are closed here.
    """

    def __init__(self, folder: Path, trackers: Trackers | None = None) -> None:
        self._trackers = trackers
        self._path = folder / METRICS
        self._events = str(folder / "tensorboard")
        self._lines = self._opened()
        self._board = SummaryWriter(self._events)

    def write(self, update: int, metrics: Mapping[str, float], *, event: str, **labels: Any) -> None:
        """Write one set of metrics; NaN becomes null in the JSON line, and is kept from the trackers."""
        clean = {name: value if np.isfinite(value) else None for name, value in metrics.items()}
        self._lines.write(json.dumps({"update": update, "event": event, **labels, **clean}) + "\n")
        for name, value in metrics.items():
            self._board.add_scalar(name, value, update)
        self._board.flush()
        if self._trackers is not None:
            finite = {name: float(value) for name, value in clean.items() if value is not None}
            self._trackers.metrics(event, update, finite)

    def rewind(self, update: int, aside: Path) -> None:
        """Go on after ``update`` as if what was written of later ones were not; its lines are kept in ``aside``."""
        lines = [data + b"\n" for _, data in _whole_lines(self._path)]
        # A line that was cut off by a crash is of an update that is made again.
        torn = self._path.read_bytes()[sum(map(len, lines)) :]
        numbers = [line["update"] for line in read_lines(self._path)]
        later = [line for line, number in zip(lines, numbers, strict=True) if number > update] + [torn] * bool(torn)
        if not later:
            return
        self.close()
        write_whole(aside / METRICS, b"".join(later))
        write_whole(self._path, b"".join(line for line in lines if line not in later))
        self._lines = self._opened()
        self._board = SummaryWriter(self._events, purge_step=update + 1)

    def close(self) -> None:
        """Flush and close both."""
        self._lines.close()
        self._board.close()

    def _opened(self) -> TextIO:
        try:
            return self._path.open("a", buffering=1)
        except OSError as error:
            raise damaged(self._path, error.strerror or str(error), _WAY_OUT) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics; one that is being written, or was cut off by a crash, is none yet.

    Raises:
        rc_grpo.kept.DamagedFileError: a line is not what a run writes; says which.
    """
    return [parse_line(path, number, data) for number, data in _whole_lines(path)]


def _whole_lines(path: Path) -> list[tuple[int, bytes]]:
    data = read_bytes(path, _WAY_OUT) if path.exists() else b""
    return list(enumerate(data.split(b"\n")[:-1], 1))


def parse_line(path: Path, number: int, data: bytes) -> dict[str, Any]:
    """Return a line of a run's metrics.

    Args:
        path: of the file, for the message.
        number: of the line, likewise.
        data: the line, without its end.

    Raises:
        rc_grpo.kept.DamagedFileError: it is not what a run writes.
    """
    try:
        line = parse_json(data, _Line)
        for name, value in line.items():
            if is_metric(name) and not (value is None or type(value) in (int, float)):
                raise ValueError(f"{name} is no number")
    except ValueError as error:
        raise DamagedFileError(
            f"{path} holds a line that is no JSON of metrics (line {number}: {error}); remove that line"
        ) from error
    return line


def is_metric(name: str) -> bool:
    """Tell a metric from what else is in a line."""
    return "/" in name


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _within_group_std(values: np.ndarray) -> float:
    """Mean over groups of the population std within each, of the candidates that were scored."""
    counted = [group[~np.isnan(group)] for group in values]
    stds = [group.std() for group in counted if len(group) > 1]
    return float(np.mean(stds)) if stds else float("nan")
