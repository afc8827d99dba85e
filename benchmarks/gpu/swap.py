"""A new LoRA version at full size: from bytes in Ray's object store to proven on a rollout worker.

    python -m benchmarks.gpu.swap

Leaves ``benchmarks/results/gpu_swap.json``.
"""

import statistics
import time
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from benchmarks.gpu.measuring import EDITOR, one_forward, random_conditions, random_states, show
from benchmarks.results import Figure, write
from rc_grpo.config import RolloutConfig
from rc_grpo.editor import lora
from rc_grpo.editor.merged import MergedPolicy
from rc_grpo.messages import PolicyVersion
from rollout_workers.worker import RolloutWorker

SIDE, BATCH, SWAPS = 512, 12, 5
FIRST_UPDATE, LATER = 1e-4, 3e-3
"""Size of the entries of B: AdamW's first step at the default learning rate, and some hundred updates later."""


class Watched(RolloutWorker):
    """A rollout worker whose graphs can be counted."""

    def forward(self) -> int:
        """Run the rollout's forward pass, and return the number of graphs compiled so far."""
        field = self._editor.velocity(random_conditions(SIDE))
        one_forward(field, random_states(SIDE, BATCH))()
        torch.cuda.synchronize()
        return int(counters["stats"]["unique_graphs"])

    def arrived(self) -> float:
        """Return the share of the LoRA's change that the merged weights carry."""
        policy = self._editor.policy
        if not isinstance(policy, MergedPolicy):
            raise TypeError("a rollout worker merges its LoRA")
        return policy.arrived()


def main() -> None:
    """Measure and write."""
    ray.init(address="local", include_dashboard=False, log_to_driver=True)
    rollout = RolloutConfig(threads=8)
    worker = ray.remote(Watched).options(num_gpus=1).remote("rollout-0", EDITOR, rollout, 0)
    _, first = ray.get(worker.untrained.options(num_returns=2).remote())
    base = lora.deserialise(first.tobytes())
    before = ray.get(worker.forward.remote())
    seconds, arrived = [], {}
    for number in range(1, SWAPS + 1):
        size = FIRST_UPDATE if number == 1 else LATER
        version, data = _version(base, number, size)
        reference = ray.put(data)
        started = time.perf_counter()
        proof = ray.get(worker.adopt.remote(version, reference))
        seconds.append(time.perf_counter() - started)
        arrived[f"{size:g}"] = ray.get(worker.arrived.remote())
        print(proof, flush=True)
    recompiles = ray.get(worker.forward.remote()) - before
    rows: list[tuple[str, Any]] = [("seconds", value) for value in seconds]
    rows += [(f"share of the change that arrives, B of size {size}", value) for size, value in arrived.items()]
    rows.append(("graphs compiled after a swap", recompiles))
    show(f"swap of a LoRA of {len(data) / 1e6:.0f} MB, {version.modules} modules", ("what", "value"), rows)
    write(
        "gpu_swap",
        {
            "seconds": Figure(statistics.median(seconds), "seconds", "below 0.7", f"{len(data) / 1e6:.0f} MB, float32"),
            "recompiles": Figure(recompiles, "graphs", "0"),
        },
        {"seconds": seconds, "arrived": arrived, "modules": version.modules, "bytes": len(data)},
        module="benchmarks.gpu.swap",
    )


def _version(base: dict[str, torch.Tensor], number: int, size: float) -> tuple[PolicyVersion, NDArray[np.uint8]]:
    generator = torch.Generator().manual_seed(number)
    weights = {
        name: tensor if ".lora_A." in name else size * torch.randn(tensor.shape, generator=generator).sign()
        for name, tensor in base.items()
    }
    return lora.pack(number, weights)


if __name__ == "__main__":
    main()
