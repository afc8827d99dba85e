"""Ray nodes started as an operator starts them, ``ray start``, several on this machine, with a token."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

BIN = Path(sys.executable).parent
START_DEADLINE_S = 90.0


class RayNodes:
    """A cluster of its own, beside whatever Ray runs on this machine; its processes end with the block.

    Args:
        folder: for the token and the nodes' logs.
        temporary: of Ray; a short path, for it holds sockets.
    """

    def __init__(self, folder: Path, temporary: Path) -> None:
        self._folder, self._temporary = folder, temporary
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port, self.dashboard = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.dashboard}"
        token = folder / "token"
        secret = secrets.token_hex(32)
        token.write_text(secret)
        token.chmod(0o600)
        self.headers = {"Authorization": f"Bearer {secret}"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.without_token = kept | {"RAY_USAGE_STATS_ENABLED": "0"}
        self.environment = self.without_token | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    def __enter__(self) -> "RayNodes":
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def start_head(self, **environment: str) -> None:
        """Start the head with no room for actors, and its dashboard."""
        place = [f"--port={self.port}", f"--dashboard-port={self.dashboard}", "--dashboard-host=127.0.0.1"]
        place += ["--include-dashboard=true", f"--temp-dir={self._temporary}"]
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

    def _start(
        self, name: str, words: list[str], cpus: int, resources: Mapping[str, float], environment: Mapping[str, str]
    ) -> None:
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *words, f"--num-cpus={cpus}"]
        command += [f"--resources={json.dumps(dict(resources))}", f"--dashboard-agent-listen-port={free_port()}"]
        command += ["--object-store-memory=300000000"]
        log = self._folder / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        deadline = time.monotonic() + START_DEADLINE_S
        while b"Ray runtime started" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
