"""A vLLM server under an actor's care: started, waited for, watched, restarted, drained, and never left behind."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path

from rc_grpo.config import ServerConfig
from rc_grpo.storable import one_line
from rc_grpo.waiting import DeadlineExceededError
from reward_service.judge import JudgeUnavailableError
from reward_service.serving import guardian
from reward_service.serving.endpoint import Probe
from reward_service.serving.shown import Files, Show

logger = logging.getLogger(__name__)
_PORTS = range(20000, 32000)
"""Below Linux's ephemeral ports, so that no client's connection sits on the one chosen."""

_TAIL_LINES, _LINE_CHARACTERS = 30, 500
_POLL_SECONDS = 0.5
_BACKOFF_MAX_S = 60.0

_GPU_ENVIRONMENT = {
    # As vLLM sets it by itself for several GPUs: threads that spin between small operations take the serving's cores.
    "OMP_NUM_THREADS": "1",
    # Or the engine's process imports again for twenty seconds what the server's has; that one keeps off the GPU.
    "VLLM_WORKER_MULTIPROC_METHOD": "fork",
}
_CPU_ENVIRONMENT = {
    # The first request with structured output would compile for twenty seconds.
    "TORCHDYNAMO_DISABLE": "1",
    # GiB; a judge's prompts are short.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Threads pinned to cores fight with the other actors for them.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    # Its internal queues would bind the machine's own address.
    "VLLM_HOST_IP": "127.0.0.1",
    # Seconds; the client is to be the one who lets go of a connection (`transport.IDLE_S`).
    "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",
}


class ServerStartError(RuntimeError):
    """The server did not come up; the message ends with its log's last lines."""


class VllmServer:
    """One vLLM server process and what it takes to keep it serving. One asyncio loop owns it.

    Args:
        name: of the actor, in logs and errors.
        model: folder or hub id.
        served_as: name by which requests ask for it.
        config: how to start it and how patiently to watch it.
        logs: folder in which it leaves ``vllm-NAME.log``.
        on_gpu: the actor has GPUs, which the server inherits; else it runs on the CPU.
        images: most of a request.
    """

    def __init__(
        self,
        name: str,
        model: str,
        served_as: str,
        config: ServerConfig,
        logs: Path,
        *,
        on_gpu: bool,
        images: int = 2,
    ) -> None:
        self.api_key = secrets.token_urlsafe(32)
        self.restarts = 0
        self.log = logs / f"vllm-{name}.log"
        self._name = name
        self._model = model
        self._served_as = served_as
        self._config = config
        self._on_gpu = on_gpu
        self._images = images
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._serving = asyncio.Event()
        self._failure: Exception | None = None
        self._watch: asyncio.Task[None] | None = None
        self._probe = Probe(config.probe_deadline_s)
        self._files = Files()

    @property
    def url(self) -> str:
        """Address of the API; another one after a restart."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int | None:
        """Process number of the guardian, whose children are the server."""
        return self._process.pid if self._process else None

    async def open(self) -> None:
        """Start the server, wait until it serves, then watch it.

        Raises:
            ServerStartError: it ended before it served.
            DeadlineExceededError: it did not serve within ``start_deadline_s``.
        """
        await self._start()
        self._watch = asyncio.create_task(self._keep_serving())

    async def ready(self) -> None:
        """Return when the server serves.

        Raises:
            JudgeUnavailableError: it was given up.
        """
        await self._serving.wait()
        if self._failure is not None:
            raise JudgeUnavailableError(f"{self._name}'s server was given up: {self._failure}") from self._failure

    def shown(self) -> AbstractContextManager[Show]:
        """Return a context inside which images lie in files that it reads."""
        return self._files.shown()

    async def metrics(self) -> str:
        """Return its Prometheus metrics as text; empty while it does not serve."""
        return await self._probe.metrics(self.url)

    async def close(self) -> None:
        """Let it finish what is under way, then end it and everything that it started."""
        if self._watch is not None:
            self._watch.cancel()
        self._serving.clear()
        await self._end(signal.SIGTERM, self._config.drain_deadline_s)
        await self._probe.close()
        self._files.close()

    def command(self, port: int) -> list[str]:
        """Return the server's command line; the key is not on it, where every user of the machine could read it."""
        config = self._config
        structured = {"backend": "xgrammar", "disable_any_whitespace": True}
        command = [str(config.python or sys.executable), "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", self._model, "--served-model-name", self._served_as]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += ["--dtype", config.dtype, "--tensor-parallel-size", str(config.tensor_parallel)]
        command += ["--max-model-len", str(config.max_model_len), "--max-num-seqs", str(config.max_num_seqs)]
        # The model's own generation_config would change sampling behind the request's back.
        command += ["--generation-config", "vllm", "--structured-outputs-config", json.dumps(structured)]
        command += ["--limit-mm-per-prompt", json.dumps({"image": self._images, "video": 0})]
        command += ["--allowed-local-media-path", str(self._files.folder)]
        if self._on_gpu:
            command += ["--gpu-memory-utilization", str(config.gpu_memory_utilization)]
            command += ["--quantization", config.quantization] if config.quantization is not None else []
            if config.kv_cache_gib is not None:
                command += ["--kv-cache-memory-bytes", str(int(config.kv_cache_gib * 2**30))]
        else:
            # A seeded request whose prompt is read in pieces ends vLLM's CPU engine: it rewinds the generator as only
            # CUDA's can be ("CPU Generator does not use offset", 0.32).
            command += ["--enforce-eager", "--no-enable-chunked-prefill"]
            command += ["--max-num-batched-tokens", str(max(4096, config.max_model_len))]
        return [*command, *config.arguments]

    def environment(self) -> dict[str, str]:
        """Return the server's environment variables."""
        inherited = dict(os.environ)
        if self._config.python is not None:
            # Ours point into another Python's packages.
            for variable in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
                inherited.pop(variable, None)
        ours = _ENVIRONMENT | (_GPU_ENVIRONMENT if self._on_gpu else _CPU_ENVIRONMENT)
        return inherited | ours | {"VLLM_API_KEY": self.api_key} | self._config.environment

    async def _start(self) -> None:
        self._port = _free_port()
        guard = [sys.executable, guardian.__file__, str(self._config.drain_deadline_s)]
        guard += ["--with", str(self._files.folder)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*guard, *self.command(self._port)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                start_new_session=True,
            )
        deadline = time.monotonic() + self._config.start_deadline_s
        try:
            while not await self._probe.answers(self.url):
                if (status := self._process.poll()) is not None:
                    raise ServerStartError(self._with_tail(f"ended with status {status} before it served"))
                if time.monotonic() > deadline:
                    raise DeadlineExceededError(
                        self._with_tail(
                            f"did not serve within server.start_deadline_s = {self._config.start_deadline_s:g}"
                        )
                    )
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            await self._end(signal.SIGUSR1, 0)
            raise
        self._serving.set()
        logger.info("%s: vLLM serves %s at %s, log %s", self._name, self._model, self.url, self.log)

    async def _keep_serving(self) -> None:
        while True:
            reason = await self._down()
            self._serving.clear()
            logger.warning("%s", self._with_tail(f"{reason}; restarting it"))
            await self._end(signal.SIGUSR1, 0)
            for attempt in range(self._config.restarts + 1):
                try:
                    await self._start()
                    self.restarts += 1
                    break
                except (ServerStartError, DeadlineExceededError, OSError) as error:
                    logger.warning("%s", error)
                    self._failure = error
                    await asyncio.sleep(min(_BACKOFF_MAX_S, 2.0**attempt))
            else:
                self._serving.set()  # Those who wait are told of the failure.
                return
            self._failure = None

    async def _down(self) -> str:
        """Return why the server does not serve any more, when that is so."""
        missed = 0
        assert self._process is not None
        while missed < self._config.probes_missed:
            await asyncio.sleep(self._config.probe_every_s)
            if (status := self._process.poll()) is not None:
                return f"ended with status {status}"
            missed = 0 if await self._probe.answers(self.url) else missed + 1
        return f"left {missed} health probes in a row unanswered"

    async def _end(self, how: signal.Signals, grace: float) -> None:
        """End guardian and server; what does not end by itself is killed, stopped processes included."""
        process = self._process
        if process is None:
            return
        process.send_signal(how)
        deadline = time.monotonic() + grace + 15.0
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _with_tail(self, what: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if self.log.exists() else []
        tail = "\n".join(f"    {one_line(line, _LINE_CHARACTERS)}" for line in lines)
        return f"{self._name}'s vLLM server {what}; the end of {self.log}:\n{tail}"


def _free_port() -> int:
    """Return a port that nobody listens on now; a server that finds it taken meanwhile is started again on another."""
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerStartError(f"no free port found in {_PORTS.start}..{_PORTS.stop}")
