"""Ray nodes started as an operator starts them, ``ray start``, several on this machine, with a token."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_DEADLINE_S = 90.0
Found = TypeVar("Found")


class RayNodes:
    """A cluster of its own, beside whatever Ray runs on this machine; its processes end with the block.

    Args:
        folder: for the token and the nodes' logs.
        temporary: of Ray; a short path, for it holds sockets.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        self._folder, self.temporary = folder, temporary
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port, self.dashboard = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.dashboard}"
        token = a_token(folder)
        self.headers = {"Authorization": f"Bearer {token.read_text()}"}
        self.without_token = environment()
        self.environment = environment(token)

    def __enter__(self) -> "RayNodes":
        return self

    def __exit__(self, *_: object) -> None:
        end_all(self._processes)

    def start_head(self, **environment: str) -> None:
        """Start the head with no room for actors, and its dashboard."""
        place = [f"--port={self.port}", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1"]
        place += ["--include-dashboard=true"]
        self._start("head", ["--head", *place], 0, {}, environment)

    def add(self, name: str, cpus: int, resources: Mapping[str, float]) -> None:
        """Start a node with resources of its own."""
        self._start(name, [f"--address=127.0.0.1:{self.port}"], cpus, resources, {})

    def ray(self, *words: str, check: bool = True, token: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run Ray's command line as a user of the cluster."""
        environment = self.environment if token else self.without_token
        return subprocess.run(
            [BIN / "ray", *words], env=environment, capture_output=True, text=True, timeout=180, check=check
        )

    def submit(self, job: str, settings: Sequence[str]) -> None:
        """Submit a training of the pocket editor as the README has it."""
        entry = [sys.executable, "-m", "deploy.train", "--config", "pocket", *settings]
        place = ["--working-dir", str(ROOT), "--runtime-env", str(ROOT / "deploy/runtime_env.yaml")]
        self.ray("job", "submit", "--address", self.url, *place, "--no-wait", "--submission-id", job, "--", *entry)

    def asked(self, method: str, what: str) -> dict[str, Any]:
        """Ask the dashboard's API, as Ray's command line does."""
        answer = httpx.request(method, f"{self.url}/api/{what}", headers=self.headers, timeout=30)
        answer.raise_for_status()
        return dict(answer.json())

    def state_of(self, job: str) -> str:
        return str(self.asked("GET", f"jobs/{job}")["status"])

    def log_of(self, job: str) -> str:
        return str(self.asked("GET", f"jobs/{job}/logs")["logs"])

    def scraped(self) -> str:
        """Return what a Prometheus reads from all nodes, whose addresses Ray writes down for it."""
        found = json.loads((self.temporary / "head" / "prom_metrics_service_discovery.json").read_text())
        targets = [target for group in found for target in group["targets"]]
        return "\n".join(httpx.get(f"http://{target}/metrics", timeout=10).text for target in targets)

    def _start(
        self, name: str, words: list[str], cpus: int, resources: Mapping[str, float], environment: Mapping[str, str]
    ) -> None:
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *words, f"--num-cpus={cpus}"]
        command += [f"--resources={json.dumps(dict(resources))}", f"--dashboard-agent-listen-port={free_port()}"]
        # Nodes that shared a folder would unpack the job's files while each other's workers read them.
        command += [f"--temp-dir={self.temporary / name}", "--object-store-memory=300000000"]
        log = self._folder / f"{name}.log"
        self._processes.append(started(command, self.environment | environment, log))
        wait_for(self._processes[-1], log)


def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """Start a node (``ray start --block``) in a session of its own."""
    with log.open("wb") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


def wait_for(node: "subprocess.Popen[bytes]", log: Path) -> None:
    """Return when a node says that it runs."""
    deadline = time.monotonic() + START_DEADLINE_S
    while b"Ray runtime started" not in log.read_bytes():
        assert node.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def a_token(folder: Path) -> Path:
    """Write a token for a cluster's nodes and users."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    return token


def environment(token: Path | None = None) -> dict[str, str]:
    """Return the variables of a node or a user, with none of Ray's from here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    shown = {} if token is None else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    return kept | {"RAY_USAGE_STATS_ENABLED": "0"} | shown


def end_all(nodes: "Sequence[subprocess.Popen[bytes]]") -> None:
    """End nodes, the first one last; those that do not end by themselves are killed."""
    for node in reversed(nodes):
        end(node.pid)
    for node in nodes:
        try:
            node.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def end(node: int) -> None:
    """End a node and what it started, if it is there."""
    with suppress(ProcessLookupError):
        os.killpg(node, signal.SIGTERM)


@contextmanager
def running_nodes(folder: Path) -> Iterator[RayNodes]:
    """A cluster without a node yet."""
    temporary = Path(tempfile.mkdtemp(prefix="ray-"))
    with RayNodes(folder, temporary) as nodes:
        yield nodes
    shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def three_nodes(folder: Path) -> Iterator[RayNodes]:
    """A head without room for actors, a node for rollouts, and one for rewards and the learner."""
    with running_nodes(folder) as nodes:
        nodes.start_head(RAY_JOB_STOP_WAIT_TIME_S="90")
        nodes.add("rollouts", 2, {"rollout": 4})
        nodes.add("others", 2, {"reward": 2, "learner": 2})
        yield nodes


PLACED = (
    "loop.groups_per_update=2",
    "rollout.resources={num_cpus: 0.5, custom: {rollout: 1}}",
    "learner.resources={num_cpus: 0.5, custom: {learner: 1}}",
    "reward.judges.ground_truth.resources={num_cpus: 0.25, custom: {reward: 1}}",
)
"""Options of a run that puts each pool on its own of the three nodes."""


def eventually(look: Callable[[], Found | None], what: str, seconds: float = 120) -> Found:
    """Look until something is found."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"no {what} in {seconds:g} s"
        time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
