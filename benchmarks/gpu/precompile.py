"""Compile the graphs that the other GPU benchmarks need, all at once, into PyTorch's cache on this machine.

    python -m benchmarks.gpu.precompile [--families]

Compilation is work for the processor, and graphs are shared by all blocks of a kind: a model of one block of each fills
the cache that the full-size model reads. ``--families`` compiles those of `benchmarks.gpu.families`.
"""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.gpu.families import EDITORS
from benchmarks.gpu.measuring import KONTEXT, body_of, one_forward, random_conditions, random_states, rollout_denoiser
from benchmarks.gpu.rollout import LARGE, SMALL, recorded
from benchmarks.gpu.update import chain
from learner import activations
from rc_grpo.config import EditorConfig
from rc_grpo.config.learner import Activations
from rc_grpo.config.rollout import Fp8
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen

FEW = {"num_layers": 1, "num_single_layers": 1}
Job = tuple[Callable[..., None], tuple[object, ...]]


def rollout_graphs(editor: EditorConfig, fp8: Fp8, side: int, batch: int) -> None:
    """Compile a rollout's blocks, with and without recording."""
    denoiser = rollout_denoiser(editor, fp8=fp8, **_few(editor))
    conditions = random_conditions(denoiser.body, editor, side)
    call = one_forward(denoiser.velocity(conditions), random_states(denoiser.body, conditions, batch))
    for record in (True, False):
        with recorded(denoiser, side, record):
            call()


def update_graphs(editor: EditorConfig, kind: Activations, side: int, batch: int, fp8: bool = False) -> None:
    """Compile the learner's blocks, forward and backward."""
    denoiser = Denoiser(body_of(editor, **_few(editor)), editor, 0)
    if fp8:
        quantise_frozen(denoiser.body)
    activations.arrange(denoiser.body, kind, compiled=True)
    chain(denoiser, side, batch, 1, Tensor.backward)()


def jobs(
    editor: EditorConfig, large: tuple[Activations, ...], small: Activations, fp8: tuple[Fp8, ...] = (False, "gemm")
) -> Iterator[Job]:
    """Return what is compiled for one editor, whose updates are under these policies."""
    for quantised in fp8:
        for side, batch in (LARGE, SMALL):
            yield rollout_graphs, (editor, quantised, side, batch)
    for kind in large:
        yield update_graphs, (editor, kind, 1024, 1)
    yield update_graphs, (editor, small, 512, 4)


def _few(editor: EditorConfig) -> dict[str, int]:
    """Return one block of each kind that the editor's transformer has."""
    config = body_of(editor, device=torch.device("meta")).transformer.config
    return {name: number for name, number in FEW.items() if name in config}


def main() -> None:
    """Run every job in a process of its own, all together."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--families", action="store_true", help="instead of FLUX.1 Kontext")
    if parser.parse_args().families:
        every = [job for editor in EDITORS.values() for job in jobs(editor, ("store",), "selective")]
    else:
        every = list(jobs(KONTEXT, ("store", "selective", "recompute"), "store", (False, "gemm", "all")))
        every.append((update_graphs, (KONTEXT, "store", 1024, 1, True)))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    processes = [context.Process(target=job, args=arguments) for job, arguments in every]
    for process in processes:
        process.start()
    for process, (job, arguments) in zip(processes, every, strict=True):
        process.join()
        outcome = "compiled" if process.exitcode == 0 else f"failed with exit code {process.exitcode}"
        said = [argument.model if isinstance(argument, EditorConfig) else argument for argument in arguments]
        print(f"{job.__name__}{tuple(said)}: {outcome}, {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
