"""Compile the graphs that the other GPU benchmarks need, all at once, into PyTorch's cache on this machine.

    python -m benchmarks.gpu.precompile

Compilation is work for the processor, and graphs are shared by all blocks of a kind: a model of one block of each fills
the cache that the full-size model reads.
"""

import multiprocessing
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.measuring import (
    denoiser_of,
    one_forward,
    random_conditions,
    random_states,
    rollout_denoiser_of,
    stock_transformer,
)
from benchmarks.gpu.rollout import recorded
from benchmarks.gpu.update import chain
from learner import activations
from rc_grpo.config.learner import Activations


def rollout_graphs(in_fp8: bool, side: int, batch: int) -> None:
    """Compile a rollout's blocks, with and without recording."""
    transformer = stock_transformer(num_layers=1, num_single_layers=1)
    denoiser = rollout_denoiser_of(transformer, fp8=in_fp8)
    call = one_forward(denoiser.velocity(random_conditions(side)), random_states(side, batch))
    for record in (True, False):
        with recorded(denoiser, side, record, layers=(1,)):
            call()


def update_graphs(kind: Activations, side: int, batch: int) -> None:
    """Compile the learner's blocks, forward and backward."""
    torch.backends.cuda.matmul.allow_tf32 = True
    denoiser = denoiser_of(stock_transformer(num_layers=1, num_single_layers=1))
    activations.arrange(denoiser.body, kind, compiled=True)
    chain(denoiser, side, batch, 1, Tensor.backward)()


JOBS: tuple[tuple[Callable[..., None], tuple[object, ...]], ...] = (
    *((rollout_graphs, (in_fp8, side, batch)) for in_fp8 in (False, True) for side, batch in ((1024, 4), (512, 12))),
    *((update_graphs, (kind, 1024, 1)) for kind in ("store", "selective", "recompute")),
    (update_graphs, ("store", 512, 4)),
)


def main() -> None:
    """Run every job in a process of its own, all together."""
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    processes = [context.Process(target=job, args=arguments) for job, arguments in JOBS]
    for process in processes:
        process.start()
    for process, (job, arguments) in zip(processes, JOBS, strict=True):
        process.join()
        outcome = "compiled" if process.exitcode == 0 else f"failed with exit code {process.exitcode}"
        print(f"{job.__name__}{arguments}: {outcome}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
