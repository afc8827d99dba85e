"""A server under an actor's care, whatever it serves: its death is noticed, its log shown, its start tried again."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rc_grpo.config import ServerConfig
from reward_service.judge import JudgeUnavailableError
from reward_service.serving import guardian
from reward_service.vllm_server import ServerStartError, VllmServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a server's processes are found in /proc")

SERVES = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
REFUSES = "import sys; sys.exit('error: unrecognized arguments: --no-such-option')"


class Scripted(VllmServer):
    """Starts these scripts one after the other, the last again and again."""

    def __init__(self, folder: Path, *scripts: str) -> None:
        patience = ServerConfig(probe_every_s=0.05, probe_deadline_s=2.0, drain_deadline_s=1.0, restarts=1)
        super().__init__("tested", "model", "model", patience, folder, on_gpu=False)
        self.scripts = list(scripts)

    def command(self, port: int) -> list[str]:
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        return [sys.executable, "-c", script, str(port)]


def lived(server: Scripted, scenario: Callable[[], Awaitable[None]]) -> None:
    async def life() -> None:
        try:
            await server.open()
            await scenario()
        finally:
            await server.close()

    asyncio.run(asyncio.wait_for(life(), 30))


def kill(server: VllmServer) -> None:
    assert server.pid is not None
    for child in guardian.descendants(server.pid):
        os.kill(child, signal.SIGKILL)


def test_a_killed_server_is_noticed_and_restarted_under_a_new_address(tmp_path: Path) -> None:
    server = Scripted(tmp_path, SERVES)

    async def scenario() -> None:
        before = server.url
        kill(server)
        while not server.restarts:
            await asyncio.sleep(0.02)
        await server.ready()
        assert server.url != before
        assert server.pid is not None

    lived(server, scenario)


def test_a_server_that_cannot_be_started_again_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = Scripted(tmp_path, SERVES, REFUSES)

    async def scenario() -> None:
        kill(server)
        while server._serving.is_set():
            await asyncio.sleep(0.02)
        with pytest.raises(JudgeUnavailableError, match=r"(?s)given up: .*--no-such-option"):
            await server.ready()

    lived(server, scenario)


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = Scripted(tmp_path, REFUSES)
    with pytest.raises(ServerStartError, match=r"(?s)ended with status 1 before it served.*--no-such-option") as error:
        lived(server, lambda: asyncio.sleep(0))
    assert "vllm-tested.log" in str(error.value)
