"""A training as a Ray job with a token: refused without it, placed, scaled, stopped, submitted again, finished."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.runs import records_of
from deploy.observability.table import METRICS
from tests.integration.conftest import read_run
from tests.integration.ray_nodes import PLACED, RayNodes, eventually, running_nodes, three_nodes
from tests.integration.test_driver import cli, settings
from tests.integration.test_observability import NOT_IN_A_SHORT_RUN, series_of

pytestmark = pytest.mark.timeout(600)
ENDLESS = "loop.updates=1000"
"""The job is still at it when everything was looked at."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    with three_nodes(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def one_node(tmp_path: Path) -> Iterator[RayNodes]:
    with running_nodes(tmp_path) as nodes:
        nodes.start_head()
        nodes.add("all", 4, {})
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


def refuses_without_a_token(nodes: RayNodes) -> bool:
    listed = nodes.ray("job", "list", "--address", nodes.url, check=False, token=False)
    return httpx.get(f"{nodes.url}/api/jobs/").status_code == 401 and listed.returncode != 0


def ends_well(nodes: RayNodes, job: str) -> bool:
    eventually(lambda: nodes.state_of(job) in ("SUCCEEDED", "FAILED"), "end", 240)
    assert nodes.state_of(job) == "SUCCEEDED", nodes.log_of(job)
    return True


@pytest.mark.slow
def test_a_job_is_refused_without_the_token_and_trains_with_it(one_node: RayNodes, tmp_path: Path) -> None:
    assert refuses_without_a_token(one_node)
    one_node.submit("only", settings(tmp_path, "submitted", "loop.updates=1"))
    assert ends_well(one_node, "only")
    assert not read_run(tmp_path / "submitted").summary["final_version"]["is_identity"]
    assert {"rollout of", "scoring of", "update from"} <= tasks_of(one_node)


@pytest.mark.slow
def test_a_job_is_refused_without_the_token_placed_scaled_stopped_and_finished_when_submitted_again(
    nodes: RayNodes, tmp_path: Path
) -> None:
    folder, run = tmp_path / "submitted", ("--run", str(tmp_path / "submitted"))
    assert refuses_without_a_token(nodes)
    options = settings(folder.parent, folder.name, *PLACED)
    nodes.submit("first", [*options, "--set", ENDLESS])

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
    nodes.submit("second", [*options, "--set", f"loop.updates={done + 2}"])
    assert ends_well(nodes, "second")
    assert [update["update"] for update in read_run(folder).updates] == list(range(1, done + 3))
