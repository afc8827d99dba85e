"""A training as a Ray job on three nodes with a token: refused, placed, scaled, stopped, submitted again, finished."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from benchmarks.runs import records_of
from tests.integration.conftest import read_run
from tests.integration.ray_nodes import RayNodes
from tests.integration.test_driver import cli, settings

pytestmark = [pytest.mark.timeout(600), pytest.mark.chaos]
ROOT = Path(__file__).parents[2]
UPDATES = 60
PLACED = (
    f"loop.updates={UPDATES}",
    "loop.groups_per_update=2",
    "rollout.resources={num_cpus: 0.5, custom: {rollout: 1}}",
    "learner.resources={num_cpus: 0.5, custom: {learner: 1}}",
    "reward.judges.ground_truth.resources={num_cpus: 0.25, custom: {reward: 1}}",
)
Found = TypeVar("Found")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[RayNodes]:
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))
    with RayNodes(tmp_path, temporary) as nodes:
        nodes.start_head(RAY_JOB_STOP_WAIT_TIME_S="90")
        nodes.add("rollouts", 2, {"rollout": 4})
        nodes.add("others", 2, {"reward": 2, "learner": 2})
        yield nodes
    shutil.rmtree(temporary, ignore_errors=True)


def eventually(look: Callable[[], Found | None], what: str, seconds: float = 120) -> Found:
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"no {what} in {seconds:g} s"
        time.sleep(0.3)


def submit(nodes: RayNodes, job: str, folder: Path) -> None:
    entry = [sys.executable, "-m", "deploy.train", "--config", "pocket"]
    entry += settings(folder.parent, folder.name, *PLACED)
    place = ["--address", nodes.url, "--working-dir", str(ROOT), "--runtime-env", str(ROOT / "deploy/runtime_env.yaml")]
    nodes.ray("job", "submit", *place, "--no-wait", "--submission-id", job, "--", *entry)


def asked(nodes: RayNodes, method: str, what: str) -> dict[str, Any]:
    """Ask the Jobs API, as Ray's command line does."""
    answer = httpx.request(method, f"{nodes.url}/api/jobs/{what}", headers=nodes.headers, timeout=30)
    answer.raise_for_status()
    return dict(answer.json())


def state_of(nodes: RayNodes, job: str) -> str:
    return str(asked(nodes, "GET", job)["status"])


def log_of(nodes: RayNodes, job: str) -> str:
    return str(asked(nodes, "GET", f"{job}/logs")["logs"])


def said(nodes: RayNodes, *words: str) -> str:
    done = subprocess.run(cli(*words), env=nodes.environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_a_job_is_refused_without_the_token_placed_scaled_stopped_and_finished_when_submitted_again(
    nodes: RayNodes, tmp_path: Path
) -> None:
    folder, run = tmp_path / "submitted", ("--run", str(tmp_path / "submitted"))
    assert httpx.get(f"{nodes.url}/api/jobs/").status_code == 401
    assert nodes.ray("job", "list", "--address", nodes.url, check=False, token=False).returncode != 0

    submit(nodes, "first", folder)

    def updates() -> int:
        assert state_of(nodes, "first") in ("PENDING", "RUNNING"), log_of(nodes, "first")
        return len(records_of(folder)) if (folder / "metrics.jsonl").exists() else 0

    eventually(updates, "first update", 180)
    assert said(nodes, "scale", "rollout", "3", *run).strip() == "rollout: 1 -> 3 workers"
    eventually(lambda: "rollout-2" in said(nodes, "status", *run), "third worker")
    eventually(lambda: records_of(folder)[-1].get("pool/rollout_workers") == 3, "update by three workers")

    assert asked(nodes, "POST", "first/stop")["stopped"]
    eventually(lambda: state_of(nodes, "first") == "STOPPED", "stop")
    assert "as asked; go on with" in log_of(nodes, "first")
    done = len(records_of(folder))
    assert 0 < done < UPDATES

    submit(nodes, "second", folder)
    eventually(lambda: state_of(nodes, "second") in ("SUCCEEDED", "FAILED"), "end", 240)
    assert state_of(nodes, "second") == "SUCCEEDED", log_of(nodes, "second")
    finished = read_run(folder)
    assert [update["update"] for update in finished.updates] == list(range(1, UPDATES + 1))
