"""A training as a Ray job on three nodes with a token: refused, placed, scaled, stopped, submitted again, finished."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.runs import records_of
from deploy.observability.table import METRICS
from tests.integration.conftest import read_run
from tests.integration.ray_nodes import PLACED, RayNodes, eventually, three_nodes
from tests.integration.test_driver import cli, settings
from tests.integration.test_observability import NOT_IN_A_SHORT_RUN, series_of

pytestmark = pytest.mark.timeout(600)
UPDATES = 60
"""So many that the job is still at it when everything was looked at: it is stopped, and its second half runs fast."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    with three_nodes(tmp_path) as nodes:
        yield nodes


def said(nodes: RayNodes, *words: str) -> str:
    done = subprocess.run(cli(*words), env=nodes.environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def metrics_of(nodes: RayNodes) -> dict[str, dict[str, float]]:
    return series_of(nodes.scraped(), "submitted")


def missing_metrics(nodes: RayNodes) -> set[str]:
    expected = {
        name
        for metric in METRICS
        if metric.short not in NOT_IN_A_SHORT_RUN and not metric.short.startswith("heldout_")
        for name in metric.series
    }
    return expected - metrics_of(nodes).keys()


def tasks_of(nodes: RayNodes) -> set[str]:
    listed = nodes.asked("GET", "v0/tasks?limit=1000")["data"]["result"]["result"]
    return {" ".join(str(task["name"]).split()[:2]) for task in listed}


def test_a_job_is_refused_without_the_token_placed_scaled_stopped_and_finished_when_submitted_again(
    nodes: RayNodes, tmp_path: Path
) -> None:
    folder, run = tmp_path / "submitted", ("--run", str(tmp_path / "submitted"))
    assert httpx.get(f"{nodes.url}/api/jobs/").status_code == 401
    assert nodes.ray("job", "list", "--address", nodes.url, check=False, token=False).returncode != 0

    options = settings(folder.parent, folder.name, f"loop.updates={UPDATES}", *PLACED)
    nodes.submit("first", options)

    def updates() -> int:
        assert nodes.state_of("first") in ("PENDING", "RUNNING"), nodes.log_of("first")
        return len(records_of(folder)) if (folder / "metrics.jsonl").exists() else 0

    eventually(updates, "first update", 180)
    assert said(nodes, "scale", "rollout", "3", *run).strip() == "rollout: 1 -> 3 workers"
    eventually(lambda: "rollout-2" in said(nodes, "status", *run), "third worker")
    eventually(lambda: records_of(folder)[-1].get("pool/rollout_workers") == 3, "update by three workers")
    eventually(lambda: not missing_metrics(nodes), "complete metrics", 30)
    all_three = {"rollout-0", "rollout-1", "rollout-2"}
    eventually(lambda: all_three <= set(metrics_of(nodes)["ray_rc_grpo_worker_policy_version"]), "three versions", 30)
    assert {"rollout of", "scoring of", "update from"} <= tasks_of(nodes)

    assert nodes.asked("POST", "jobs/first/stop")["stopped"]
    eventually(lambda: nodes.state_of("first") == "STOPPED", "stop")
    assert "as asked; go on with" in nodes.log_of("first")
    done = len(records_of(folder))
    assert 0 < done < UPDATES

    nodes.submit("second", options)
    eventually(lambda: nodes.state_of("second") in ("SUCCEEDED", "FAILED"), "end", 240)
    assert nodes.state_of("second") == "SUCCEEDED", nodes.log_of("second")
    finished = read_run(folder)
    assert [update["update"] for update in finished.updates] == list(range(1, UPDATES + 1))
