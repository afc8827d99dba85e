"""What every long-lived process of a run sets up for itself: its CPU threads, and memory that does not creep."""

import ctypes
import threading
import time

import torch

TRIM_EVERY_S = 20.0


def prepare_process(threads: int) -> None:
    """Let torch use so many CPU threads, and keep the process from holding what it has freed."""
    torch.set_num_threads(threads)
    keep_memory_flat()


def keep_memory_flat() -> None:
    """Give freed memory back to the operating system every so often, from a thread that ends with the process.

    glibc raises its threshold for separate mappings with every large block that is freed. From then on tensors of a few
    megabytes come from the heap, whose free pages it keeps below whatever lies on top: a process that allocates alike
    for days grows for days. Where there is no glibc, nothing is done.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        return

    def run() -> None:
        while True:
            time.sleep(TRIM_EVERY_S)
            trim(0)

    threading.Thread(target=run, name="memory", daemon=True).start()
