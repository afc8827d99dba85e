"""A new LoRA version at full size: from bytes in Ray's object store to proven on a rollout worker.

    python -m benchmarks.gpu.swap

Leaves ``benchmarks/results/gpu_swap.json``.
"""

import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch._dynamo.utils import counters

from benchmarks.gpu.measuring import KONTEXT, one_forward, random_conditions, random_states, show
from benchmarks.results import Figure, write
from rc_grpo.config import EditorConfig, RolloutConfig
from rc_grpo.editor import files, lora
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.messages import PolicyVersion
from rollout_workers.worker import RolloutWorker

SIDE, BATCH, SWAPS = 512, 12, 5
FIRST_UPDATE, LATER = 1e-4, 3e-3
"""Size of the entries of B: AdamW's first step at the default learning rate, and some hundred updates later."""


class Watched(RolloutWorker):
    """A rollout worker whose graphs can be counted."""

    def forward(self) -> int:
        """Run the rollout's forward pass, and return the number of graphs compiled so far."""
        body = self._editor.body
        conditions = random_conditions(body, self._editor.config, SIDE)
        one_forward(self._editor.velocity(conditions), random_states(body, conditions, BATCH))()
        torch.cuda.synchronize()
        return int(counters["stats"]["unique_graphs"])

    def arrived(self) -> float:
        """Return the share of the LoRA's change that the merged weights carry."""
        policy = self._editor.policy
        if not isinstance(policy, MergedPolicy):
            raise TypeError("a rollout worker merges its LoRA")
        return policy.arrived()


@dataclass(frozen=True)
class Measured:
    """What one editor's swaps came to.

    Attributes:
        seconds: of each.
        arrived: share of the LoRA's change that merged weights carry, by the size of its entries.
        recompiles: graphs compiled after the swaps.
        modules: of the LoRA.
        bytes: of it.
        dtype: that it travels in.
    """

    seconds: list[float]
    arrived: dict[str, float]
    recompiles: int
    modules: int
    bytes: int
    dtype: str

    @property
    def median(self) -> Figure:
        """Seconds of one."""
        return Figure(statistics.median(self.seconds), "seconds", None, f"{self.bytes / 1e6:.0f} MB, {self.dtype}")

    def show(self) -> None:
        """Print it."""
        rows: list[tuple[str, Any]] = [("seconds", value) for value in self.seconds]
        rows += [(f"share of the change that arrives, B of size {size}", value) for size, value in self.arrived.items()]
        rows.append(("graphs compiled after a swap", self.recompiles))
        show(f"swap of a LoRA of {self.bytes / 1e6:.0f} MB, {self.modules} modules", ("what", "value"), rows)


def measure(editor: EditorConfig) -> Measured:
    """Have a rollout worker with an editor of full size adopt version after version; Ray runs."""
    rollout = RolloutConfig(threads=8)
    worker = ray.remote(Watched).options(num_gpus=1).remote("rollout-0", editor, rollout, 0)
    _, first = ray.get(worker.untrained.options(num_returns=2).remote())
    base = lora.deserialise(first.tobytes())
    before = ray.get(worker.forward.remote())
    seconds, arrived = [], {}
    for number in range(1, SWAPS + 1):
        size = FIRST_UPDATE if number == 1 else LATER
        version, data = _version(base, number, size, files.dtype(editor))
        reference = ray.put(data)
        started = time.perf_counter()
        proof = ray.get(worker.adopt.remote(version, reference))
        seconds.append(time.perf_counter() - started)
        arrived[f"{size:g}"] = ray.get(worker.arrived.remote())
        print(proof, flush=True)
    recompiles = ray.get(worker.forward.remote()) - before
    return Measured(seconds, arrived, recompiles, version.modules, len(data), editor.dtype)


def main() -> None:
    """Measure FLUX.1 Kontext and write."""
    ray.init(address="local", include_dashboard=False, log_to_driver=True)
    measured = measure(KONTEXT)
    measured.show()
    write(
        "gpu_swap",
        {
            "seconds": replace(measured.median, goal="at most 0.35"),
            "recompiles": Figure(measured.recompiles, "graphs", "0"),
        },
        asdict(measured),
        module="benchmarks.gpu.swap",
    )


def _version(
    base: dict[str, torch.Tensor], number: int, size: float, dtype: torch.dtype
) -> tuple[PolicyVersion, NDArray[np.uint8]]:
    generator = torch.Generator().manual_seed(number)
    weights = {
        name: tensor if ".lora_A." in name else size * torch.randn(tensor.shape, generator=generator).sign()
        for name, tensor in base.items()
    }
    return lora.pack(number, lora.rounded(weights, dtype))


if __name__ == "__main__":
    main()
