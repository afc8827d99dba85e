"""What a run works on: does everything that it asks for fit, and into memory."""

import os
from collections.abc import Iterator

import psutil
import torch

from deploy.checking.finding import Finding, finding
from deploy.cluster import check_placement, demands, reach
from deploy.planning.work import memory_gib
from rc_grpo.config import RunConfig

GIB = 2**30
_WAYS = {
    "rollout worker": "set rollout.offload_encoders=true, or a lower editor.resolution",
    "learner rank": "set learner.anchors_per_pass lower, or learner.activations=recompute",
}


def check_machine(config: RunConfig) -> Iterator[Finding]:
    """Yield whether the cluster is there, whether the actors fit on it, and whether models fit into memory.

    Of a cluster elsewhere nothing is known before a run connects to it, which checks the placement again.
    """
    address = config.cluster.address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        yield finding("cluster", lambda: f"Ray answers at {reach(address)}; what fits there is seen at the start")
        return
    cpus, gpus = config.cluster.cpus or os.cpu_count() or 1, torch.cuda.device_count()
    yield finding("cluster", lambda: _placement(config, cpus, gpus))
    yield from _memory(config, gpus)


def _placement(config: RunConfig, cpus: int, gpus: int) -> str:
    asked = demands(config)
    check_placement(asked, [{"CPU": float(cpus), "GPU": float(gpus)}])
    pools = ", ".join(f"{demand.count} x {demand.pool}" for demand in asked)
    return f"{pools} fit on this machine's {cpus} CPUs" + (f" and {gpus} GPUs" if gpus else "")


def _memory(config: RunConfig, gpus: int) -> Iterator[Finding]:
    needed = memory_gib(config)
    if not needed:
        yield Finding("memory", "fine", "the model is small")
        return
    if gpus:
        there = torch.cuda.get_device_properties(0).total_memory / GIB
        for pool, gib in needed.items():
            told = f"a {pool} needs about {gib:.1f} of the GPU's {there:.0f} GiB"
            yield (
                Finding("memory", "fine", told) if gib <= there else Finding("memory", "note", f"{told}: {_WAYS[pool]}")
            )
        return
    counts = {"rollout worker": config.rollout.workers, "learner rank": config.learner.ranks}
    float32 = config.editor.dtype == "float32"
    total = sum(gib * counts[pool] * (2 if float32 else 1) for pool, gib in needed.items())
    free = psutil.virtual_memory().available / GIB
    told = f"models and activations take about {total:.1f} GiB; {free:.1f} are free"
    yield Finding("memory", "fine" if total <= free else "note", told)
