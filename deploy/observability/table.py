"""The metrics of a run: the one table that exporter, documentation and dashboard use and that alerts are checked by."""

from collections.abc import Iterable
from functools import lru_cache

from deploy.observability.metric import Kind, Metric, Source


def _metric(
    short: str,
    unit: str,
    help: str,
    *patterns: str | Source,
    kind: Kind = "gauge",
    tags: Iterable[str] = (),
    buckets: tuple[float, ...] = (),
) -> Metric:
    sources = tuple(Source(pattern) if isinstance(pattern, str) else pattern for pattern in patterns)
    return Metric(short, kind, unit, help, sources, tuple(tags), buckets)


def _live(pattern: str, **tags: str) -> Source:
    return Source(pattern, tags, live=True)


_STEP = ("step",)
_REGION = ("step", "region")

LEARNING = (
    _metric("task_reward_mean", "reward", "Task reward, mean over the batch", "reward/task_mean"),
    _metric(
        "task_reward_within_group_std",
        "reward",
        "Task reward, spread within a group: what advantages are made of",
        "reward/task_within_group_std",
    ),
    _metric("reference_reward_mean", "reward", "Task reward of candidate 0", "reward/reference_candidate"),
    _metric("background_drift_mean", "1", "Change outside the mask", "background_drift/mean"),
    _metric(
        "background_drift_within_group_std",
        "1",
        "Change outside the mask, spread within a group",
        "background_drift/within_group_std",
    ),
    _metric("diversity_mean", "1", "Distance between a group's candidates", "diversity/mean"),
    _metric("acd_reward_mean", "reward", "Attention reward, mean over the batch", "acd/mean"),
    _metric("acd_reward_within_group_std", "reward", "Attention reward, spread within a group", "acd/within_group_std"),
    _metric("heldout_reward_mean", "reward", "Held-out task reward, last evaluation", "heldout/reward"),
    _metric("heldout_background_drift_mean", "1", "Held-out change outside the mask", "heldout/background_drift"),
    _metric("heldout_failed_scores", "scores", "Held-out tasks that no judge scored", "heldout/failed"),
    _metric(
        "heldout_judge_reward_mean",
        "reward",
        "Held-out reward by each judge",
        "heldout/reward/{judge}",
        tags=("judge",),
    ),
    _metric(
        "heldout_subscore_mean",
        "score",
        "Held-out subscores",
        "heldout/{judge}/{subscore}",
        tags=("judge", "subscore"),
    ),
)

THROUGHPUT = (
    _metric("updates_done", "updates", "Updates made", _live("run/done")),
    _metric("updates_planned", "updates", "Updates planned", _live("run/planned")),
    _metric("updates_total", "updates", "Updates made, those made again included", "batch/updates", kind="counter"),
    _metric(
        "last_update_timestamp_seconds",
        "seconds",
        "When the last update was recorded, or the run began, since the epoch",
        _live("run/last_update"),
    ),
    _metric("update_seconds", "seconds", "From one update's record to the next", "seconds/update_total"),
    _metric(
        "learner_phase_seconds_total",
        "seconds",
        "Time of the learner by phase, waiting for groups included; its rate is the phase's share of the time",
        "update/seconds_{phase}",
        Source("seconds/waiting_for_rollouts", {"phase": "waiting_for_rollouts"}),
        Source("seconds/waiting_for_scores", {"phase": "waiting_for_scores"}),
        kind="counter",
        tags=("phase",),
    ),
    _metric("learner_update_seconds", "seconds", "The ranks' part of an update", "update/seconds"),
    _metric(
        "rollout_phase_seconds",
        "seconds",
        "Time of a group's rollout by phase",
        "rollout_seconds/{phase}",
        tags=["phase"],
    ),
    _metric("groups_total", "groups", "Groups that came to the learner", "batch/groups", kind="counter"),
    _metric("candidates_total", "candidates", "Candidates in them", "batch/candidates", kind="counter"),
    _metric("groups_skipped_share", "ratio", "Share of an update's groups not learned from", "groups_skipped/share"),
    _metric(
        "groups_skipped_total",
        "groups",
        "Groups not learned from, by reason",
        "groups_skipped/{reason}",
        kind="counter",
        tags=("reason",),
    ),
    _metric(
        "ledger_groups",
        "groups",
        "Groups of the plan by state; dropped and remade ones since the beginning",
        _live("ledger/{state}"),
        tags=("state",),
    ),
    _metric(
        "wait_age_seconds",
        "seconds",
        "How long the oldest wait of a component has gone on: the run, the source of its batches, the learner, each "
        "pool's calls",
        _live("wait/{role}"),
        tags=("role",),
    ),
    _metric(
        "wait_deadline_ratio",
        "ratio",
        "The oldest wait with a deadline, as a share of it: 1 is when it is given up",
        _live("wait/{role}/deadline"),
        tags=("role",),
    ),
)

POOLS = (
    _metric("pool_workers", "workers", "Workers that are up", _live("pool/{role}_workers"), tags=["role"]),
    _metric("pool_workers_wanted", "workers", "Workers wanted", _live("pool/{role}_wanted"), tags=["role"]),
    _metric("pool_workers_starting", "workers", "Workers that start", _live("pool/{role}_starting"), tags=["role"]),
    _metric("pool_workers_leaving", "workers", "Workers that leave", _live("pool/{role}_leaving"), tags=["role"]),
    _metric(
        "pool_workers_resting",
        "workers",
        "Workers that cannot serve for now",
        _live("pool/{role}_resting"),
        tags=["role"],
    ),
    _metric(
        "pool_workers_lost", "workers", "Workers lost since the driver began", _live("pool/{role}_lost"), tags=["role"]
    ),
    _metric(
        "pool_failed_starts",
        "workers",
        "Workers that did not come up, since the driver began",
        _live("pool/{role}_failed_starts"),
        tags=["role"],
    ),
    _metric("queue_calls", "calls", "Calls that wait for a free worker", _live("pool/{role}_queued"), tags=["role"]),
    _metric(
        "queue_age_seconds", "seconds", "How long the oldest of them has waited", _live("queue/{role}"), tags=["role"]
    ),
    _metric(
        "pool_busy_seconds",
        "seconds",
        "Time in which workers had calls, since the driver began",
        _live("pool/{role}_busy_seconds"),
        tags=["role"],
    ),
    _metric(
        "pool_busy_share", "ratio", "Share of its workers' time in an update", "pool/{role}_busy_share", tags=["role"]
    ),
    _metric("policy_version", "version", "The learner's policy version", _live("version")),
    _metric(
        "worker_policy_version",
        "version",
        "Version that a rollout worker last proved",
        _live("version/{worker}"),
        tags=["worker"],
    ),
    _metric(
        "worker_sync_seconds",
        "seconds",
        "From a version's publication to the worker's proof",
        _live("sync/{worker}"),
        tags=["worker"],
    ),
    _metric("sync_seconds_max", "seconds", "The slowest worker's, at the update", "seconds/version_to_proof_max"),
    _metric("staleness_mean", "versions", "Age of the groups learned from", "staleness/mean"),
    _metric("staleness_max", "versions", "Age of the oldest of them", "staleness/max"),
    _metric("staleness_bound", "versions", "loop.max_staleness", _live("run/staleness_bound")),
    _metric("canary_shift_max", "1", "What the LoRA changes of a fixed velocity", "policy/canary_shift"),
)

JUDGE = (
    _metric(
        "judge_latency_seconds",
        "seconds",
        "Time to score a group",
        "reward/judge_latency_seconds",
        "batch/latency",
        kind="histogram",
        buckets=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0),
    ),
    _metric("judge_attempts_max", "attempts", "Most attempts that a group's scores took", "reward/judge_attempts_max"),
    _metric(
        "task_scores_failed_total",
        "scores",
        "Candidates left without a task reward",
        "reward/failed_scores",
        kind="counter",
    ),
    _metric(
        "judge_scores_failed_total",
        "scores",
        "Candidates that a judge could not score",
        "reward/{judge}_failed_scores",
        kind="counter",
        tags=("judge",),
    ),
    _metric("judge_reward_mean", "reward", "Reward by each judge", "reward/{judge}_mean", tags=("judge",)),
    _metric(
        "judge_reward_within_group_std",
        "reward",
        "Reward by each judge, spread within a group",
        "reward/{judge}_within_group_std",
        tags=("judge",),
    ),
    _metric("judge_subscore_mean", "score", "Subscores", "judge/{judge}/{subscore}", tags=("judge", "subscore")),
)

LEARNER = (
    _metric("gradient_norm", "1", "Norm of the gradient, before clipping", "update/grad_norm"),
    _metric("learning_rate", "1", "Learning rate", "update/learning_rate"),
    _metric("distance_from_base", "1", "Distance of the policy from the base model", "update/distance_from_base"),
    _metric("objective", "1", "Clipped surrogate", "update/{step}/objective", tags=_STEP),
    _metric("policy_kl", "1", "Divergence from the policy that rolled out", "update/{step}/kl", tags=_STEP),
    _metric(
        "clip_fraction",
        "ratio",
        "Share of ratios that were clipped, by region",
        Source("update/{step}/clip_fraction", {"region": "all"}),
        "update/{step}/clip_fraction_{region}",
        tags=_REGION,
    ),
    _metric(
        "velocity_norm_ratio",
        "ratio",
        "Norm of the velocity over the base model's, by region",
        "update/{step}/velocity_norm_{region}",
        tags=_REGION,
    ),
    _metric(
        "log_ratio_max",
        "1",
        "Largest log-ratio, by region",
        Source("update/{step}/max_abs_log_ratio", {"region": "all"}),
        "update/{step}/max_abs_log_ratio_{region}",
        tags=_REGION,
    ),
    _metric(
        "recomputed_log_ratio_max",
        "1",
        "Largest log-ratio between a step and its recomputation; 0 but for kernels",
        "update/{step}/recomputed_max_abs_log_ratio",
        tags=_STEP,
    ),
    _metric(
        "recomputed_deviation_max",
        "1",
        "Largest difference between a step and its recomputation",
        "update/{step}/recomputed_max_deviation",
        tags=_STEP,
    ),
    _metric("learner_ranks", "ranks", "Ranks of the learner", _live("learner/ranks")),
    _metric(
        "learner_idle_share",
        "ratio",
        "Share of the ranks' work in an update that only kept them in step",
        "update/rank_idle_share",
    ),
    _metric("learner_losses", "times", "Times it was lost since its checkpoint", _live("learner/losses")),
    _metric(
        "learner_rank_flop_per_second",
        "FLOP/s",
        "Operations a second of one rank in an update: the method's, without what is computed again",
        "batch/flop_per_second",
    ),
)

SECTIONS = {"Learning": LEARNING, "Throughput": THROUGHPUT, "Pools": POOLS, "Judge": JUDGE, "Learner": LEARNER}
METRICS = tuple(metric for metrics in SECTIONS.values() for metric in metrics)
BY_SHORT_NAME = {metric.short: metric for metric in METRICS}
ELSEWHERE = {
    "seconds/waiting_for_groups": "the sum of the learner's two waiting phases",
    "explore/{figure}": "in `metrics.jsonl`, TensorBoard and the trackers alone, of a run with `rollout.explore`",
    "reward/pruned": "in `metrics.jsonl`, TensorBoard and the trackers alone, of a run with `reward.prune`",
    "judge_server/{judge}/{figure}": "the reward actors export their servers' own metrics, as `ray_vllm_...`",
}
"""Figures of `metrics.jsonl` that no metric takes, and where they are instead."""


@lru_cache(4096)  # Asked for every figure, every second; workers come and go, so not without a bound.
def find(name: str) -> tuple[Metric, dict[str, str]] | None:
    """Return the metric that takes a figure, and the figure's tags; None where there is none. The first row counts."""
    for metric in METRICS:
        for source in metric.sources:
            tags = source.match(name)
            if tags is not None:
                return metric, tags
    return None


def is_elsewhere(name: str) -> bool:
    """A figure is known not to be exported here."""
    return any(Source(pattern).match(name) is not None for pattern in ELSEWHERE)


def as_markdown() -> str:
    """Return the table for people."""
    lines = []
    for section, metrics in SECTIONS.items():
        lines += [f"**{section}**", "", "| name | kind | unit | labels | what | from |", "|---|---|---|---|---|---|"]
        for metric in metrics:
            tags = " ".join(f"`{tag}`" for tag in metric.tags)
            taken = ", ".join(f"`{source.pattern}`" + (", live" if source.live else "") for source in metric.sources)
            lines.append(
                f"| `{metric.prometheus}` | {metric.kind} | {metric.unit} | {tags} | {metric.help} | {taken} |"
            )
        lines.append("")
    return "\n".join(lines)
