"""What a process of a run sets up for itself: CPU threads, memory that does not creep, kernels that repeat."""

import ctypes
import os
import threading
import time

import torch

from rc_grpo.config import Resources

TRIM_EVERY_S = 20.0
_M_ARENA_MAX = -8
"""Of ``mallopt``, from glibc's ``malloc.h``."""


def prepare_process(threads: int) -> None:
    """Let torch use so many CPU threads, and keep the process from holding what it has freed."""
    torch.set_num_threads(threads)
    keep_memory_flat()


def keep_memory_flat() -> None:
    """Let all threads share one heap, and give what is free in it back to the operating system every so often.

    By itself glibc makes threads heaps of their own. Ray's threads free what others allocated, in pieces that fit
    nowhere: a driver's grew by 5 MB in 100 updates, with as much in use at the end as at the beginning.
    It must be called before the threads are there.

    glibc raises its threshold for separate mappings with every large block that is freed. From then on tensors of a few
    megabytes come from the heap, whose free pages it keeps below whatever lies on top: a process that allocates alike
    for days grows for days. So a thread that ends with the process trims it. Where there is no glibc, nothing is done.
    """
    library = ctypes.CDLL(None)
    trim = getattr(library, "malloc_trim", None)
    if trim is None:
        return
    library.mallopt(_M_ARENA_MAX, 1)

    def run() -> None:
        while True:
            time.sleep(TRIM_EVERY_S)
            trim(0)

    threading.Thread(target=run, name="memory", daemon=True).start()


def hand_back(resources: Resources, device: torch.device) -> None:
    """Hand memory that torch keeps for its next call back to the GPU, if other processes have a share of it.

    Each would otherwise hold the most that it ever used, while it waits for its turn: together more than there is.

    Args:
        resources: what this process asked Ray for.
        device: that it works on.
    """
    if device.type == "cuda" and resources.num_gpus < 1:
        torch.cuda.empty_cache()


def repeat_exactly() -> None:
    """Have torch take kernels alone that give the same bits for the same inputs.

    Attention's backward pass otherwise adds up its gradients in whatever order its blocks end, and cuBLAS may share a
    workspace between streams. It must be called before the process touches a GPU: cuBLAS reads its variable then.
    An operation without such a kernel raises.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    # It would fill what is about to be written anyway.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
