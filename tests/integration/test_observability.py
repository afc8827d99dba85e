"""What a run tells Ray's metrics agent is what Prometheus finds there."""

import math
import time
import urllib.request
from pathlib import Path

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from deploy.observability.table import METRICS, find, is_elsewhere
from tests.integration.conftest import train_short

OVERLAPPED = (
    "loop.updates=4",
    "loop.max_staleness=2",
    "rollout.workers=2",
    "rollout.solver=dpmpp_2m",
    "objective.old_path=recompute",
    "learner.activations=recompute",
)
LABELS = {"event", "update", "version"}
NOT_IN_A_SHORT_RUN = {
    "acd_reward_mean",
    "acd_reward_within_group_std",
    "groups_skipped_total",
    "judge_scores_failed_total",
    "task_scores_failed_total",
}
"""Nothing failed, or the configuration does without."""


def scrape() -> dict[str, dict[str, float]]:
    """Ask the agent of this machine's node."""
    (port,) = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return series_of(answer.read().decode(), "observed")


def series_of(text: str, run: str) -> dict[str, dict[str, float]]:
    """Return the values of a run's series in what an agent answered, by metric and by the labels that are ours."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            ours = ("judge", "le", "phase", "reason", "region", "role", "state", "step", "subscore", "worker")
            labels = " ".join(sample.labels[label] for label in ours if label in sample.labels)
            if sample.labels.get("run") == run:
                found.setdefault(sample.name, {})[labels] = sample.value
    return found


@pytest.mark.usefixtures("cluster")
def test_prometheus_finds_every_metric_of_an_overlapped_run_under_the_name_that_dashboard_and_alerts_use(
    tmp_path: Path,
) -> None:
    run = train_short(tmp_path, "observed", "evaluation.tasks=4", *OVERLAPPED)
    last = run.updates[-1]
    ages = [update["staleness/max"] for update in run.updates]
    assert 0 < max(ages) <= 2, "overlapped training keeps its staleness bound, and uses it"
    assert run.summary["ledger"]["learned"] == 8
    forgotten = [name for name in last if name not in LABELS and find(name) is None and not is_elsewhere(name)]
    assert forgotten == []

    expected = {name for metric in METRICS if metric.short not in NOT_IN_A_SHORT_RUN for name in metric.series}
    backward = sum(update["update/seconds_backward"] for update in run.updates)
    values = {
        "ray_rc_grpo_updates_total": {"": 4.0},
        "ray_rc_grpo_candidates_total": {"": 32.0},
        "ray_rc_grpo_updates_planned": {"": 4.0},
        "ray_rc_grpo_task_reward_mean": {"": pytest.approx(last["reward/task_mean"])},
        "ray_rc_grpo_judge_latency_seconds_count": {"": 8.0},
        "ray_rc_grpo_pool_workers": {"rollout": 2.0, "reward-ground_truth": 1.0},
    }

    def told(found: dict[str, dict[str, float]]) -> tuple[dict[str, dict[str, float]], float | None]:
        phases = found.get("ray_rc_grpo_learner_phase_seconds_total", {})
        return {name: found.get(name, {}) for name in values}, phases.get("backward")

    def is_all_told(found: dict[str, dict[str, float]]) -> bool:
        return expected <= found.keys() and told(found) == (values, pytest.approx(backward))

    # A process tells the agent what it knows every ten seconds: every name can be there while a value is an update old.
    deadline = time.monotonic() + 30
    while not is_all_told(found := scrape()) and time.monotonic() < deadline:
        time.sleep(1.0)
    assert expected - found.keys() == set()
    assert told(found) == (values, pytest.approx(backward))
    assert set(found["ray_rc_grpo_worker_policy_version"]) == {"rollout-0", "rollout-1"}
    assert all(math.isfinite(value) for by_labels in found.values() for value in by_labels.values())
