"""One measurement of a judge's servers that share a GPU: images judged a second, and what it took."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil
from numpy.typing import NDArray

from benchmarks.gpu.cluster.observer import gpus
from benchmarks.judge_throughput import Group, Scores, pace
from rc_grpo.messages import EditTask
from reward_service.judge import Verdict
from reward_service.serving.server_metrics import read
from reward_service.vision_judge import VisionJudge
from reward_service.vllm_server import VllmServer

LEAST = 0.9
"""Share of images that get a score: what random weights say is now and then none at all."""


@dataclass
class Run:
    """One measurement.

    Attributes:
        way: of asking.
        quantization: of the weights.
        servers: that share the GPU.
        in_flight: requests, of each.
        images_per_second: that got a score.
        prefix_hit_share: of the prompts' tokens, those whose keys and values were there.
        image_hit_share: of the images that requests held, those that were processed before.
        answer_tokens: mean of an answer.
        cpu_seconds: of the servers' processes and of this one, an image.
        gpu_busy: share of the time in which a kernel ran, as nvidia-smi says.
    """

    way: str
    quantization: str | None
    servers: int
    in_flight: int
    images_per_second: float
    prefix_hit_share: float
    image_hit_share: float
    answer_tokens: float
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    gpu_busy: float = float("nan")


class Replicas:
    """Judges of a server each, which take groups in turn."""

    def __init__(self, judges: Iterable[VisionJudge]) -> None:
        self._turn = itertools.cycle(judges)

    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]`` of one task."""
        return await next(self._turn).score(task, images)


async def measure_run(servers: Sequence[VllmServer], judge: Scores, groups: list[Group], run: Run) -> None:
    """Score groups that nobody has seen, and fill the run in."""
    before, used = await _metrics(servers), _cpu_seconds(servers)
    seen: list[int] = []
    looking = asyncio.create_task(_look(seen))
    run.images_per_second = await pace(judge, groups, len(groups), LEAST)
    looking.cancel()
    run.gpu_busy = float(np.mean(seen)) / 100 if seen else float("nan")
    logs = [str(server.log) for server in servers if server.restarts]
    assert not logs, f"a server was restarted meanwhile; its log was {', '.join(logs)}"
    after, images = await _metrics(servers), sum(len(group[1]) for group in groups)
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    run.prefix_hit_share = _share(grown, "vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
    run.image_hit_share = _share(grown, "vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total")
    run.answer_tokens = _share(grown, "vllm:generation_tokens_total", "vllm:request_success_total")
    now = _cpu_seconds(servers)
    run.cpu_seconds = {name: (seconds - used.get(name, 0.0)) / images for name, seconds in now.items()}


async def _look(seen: list[int]) -> None:
    """Note twice a second how busy the GPU is, until cancelled."""
    while True:
        seen += [busy for busy, _ in await asyncio.to_thread(lambda: list(gpus()))]
        await asyncio.sleep(0.5)


async def _metrics(servers: Sequence[VllmServer]) -> dict[str, float]:
    """Return what the servers count, together."""
    total = Counter[str]()
    for server in servers:
        total.update(read(await server.metrics()))
    return dict(total)


def _cpu_seconds(servers: Sequence[VllmServer]) -> dict[str, float]:
    seconds = {"client": time.process_time()}
    for process in (child for server in servers for child in psutil.Process(server.pid).children(recursive=True)):
        try:
            name, times = process.name(), process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds[name] = seconds.get(name, 0.0) + times.user + times.system
    return seconds


def _share(grown: dict[str, float], part: str, whole: str) -> float:
    return grown.get(part, 0.0) / grown[whole] if grown.get(whole) else float("nan")
