"""Two hosts on one machine: network namespaces with a cable between them, and a folder that each has for itself.

It needs the rights of root on Linux, as in a container of one's own.
"""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.ray_nodes import BIN, a_token, end_all, environment, started, wait_for

HERE, THERE = "10.231.7.1", "10.231.7.2"
_PORT = 6399


class Hosts:
    """Both hosts; `site` is a folder of the first that the second does not see, having another in its place.

    Args:
        folder: of the test, for logs and the token.
        site: a short path, for Ray's sockets are in it.
    """

    def __init__(self, folder: Path, site: Path) -> None:
        self.site = site
        self._folder = folder
        self._names = {HERE: f"here-{secrets.token_hex(3)}", THERE: f"there-{secrets.token_hex(3)}"}
        self._nodes: list[subprocess.Popen[bytes]] = []
        self.environment = environment(a_token(folder))
        self.address = f"{HERE}:{_PORT}"

    def __enter__(self) -> "Hosts":
        here, there = self._names.values()
        for name in (here, there):
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", "cable", "netns", here, "type", "veth", "peer", "name", "cable", "netns", there)
        for address, name in self._names.items():
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _run("ip", "-n", name, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        end_all(self._nodes)
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], check=False)

    def start_node(self, host: str, resources: Mapping[str, float], gpu: int | None = None) -> None:
        """Start a Ray node on a host, with one GPU of this machine if asked for; the first is the head."""
        place = ["--head", f"--port={_PORT}", "--include-dashboard=false"] if not self._nodes else []
        place = place or [f"--address={self.address}"]
        command = [str(BIN / "ray"), "start", "--block", "--disable-usage-stats", *place, f"--node-ip-address={host}"]
        command += ["--num-cpus=4", f"--resources={json.dumps(dict(resources))}", "--object-store-memory=300000000"]
        command += [f"--temp-dir={self.site / 'ray'}", f"--num-gpus={0 if gpu is None else 1}"]
        log, shown = self._folder / f"{host}.log", {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
        self._nodes.append(started(self._on(host, command), self.environment | shown, log))
        wait_for(self._nodes[-1], log)

    def run(self, host: str, command: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        """Run a command on a host to its end."""
        return subprocess.run(
            self._on(host, command), env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )

    def carried(self) -> tuple[int, int]:
        """Return the bytes that came to the first host over the cable, and those that left it."""
        statistics = "/sys/class/net/cable/statistics"
        said = self.run(HERE, ["cat", f"{statistics}/rx_bytes", f"{statistics}/tx_bytes"], 10).stdout
        came, left = map(int, said.split())
        return came, left

    def _on(self, host: str, command: Sequence[str]) -> list[str]:
        inside = ["ip", "netns", "exec", self._names[host]]
        if host == HERE:
            return [*inside, *command]
        # Memory of its own for the object store: the same /dev/shm would be no network.
        own = f'mount -t tmpfs tmpfs {self.site} && mount -t tmpfs tmpfs /dev/shm && exec "$@"'
        return [*inside, "unshare", "--mount", "sh", "-c", own, "sh", *command]


def possible() -> bool:
    """Tell whether this machine lets us make hosts."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    name = f"probe-{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    return made and subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False).returncode == 0


@contextmanager
def two_hosts(folder: Path, *, gpus: bool = False) -> Iterator[Hosts]:
    """A head with room for a learner, and a host with room for the rest; each with a GPU if asked for."""
    site = Path(tempfile.mkdtemp(prefix="site-"))
    try:
        with Hosts(folder, site) as hosts:
            hosts.start_node(HERE, {"here": 4}, 0 if gpus else None)
            hosts.start_node(THERE, {"there": 8}, 1 if gpus else None)
            yield hosts
    finally:
        time.sleep(1)  # Ray's processes write to it until they are gone.
        shutil.rmtree(site, ignore_errors=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
