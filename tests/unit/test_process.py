"""Memory that a process has freed goes back to the operating system, and to a GPU that it shares."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rc_grpo.config import Resources
from rc_grpo.process import hand_back

TRIMMED = """
import time
from pathlib import Path

from rc_grpo import process


def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


process.TRIM_EVERY_S = 0.05
before = resident()
blocks = [bytes(range(256)) * 256 for _ in range(3000)]
held = resident()
last = blocks[-1]
del blocks
kept = resident()
process.keep_memory_flat()
time.sleep(1)
print(before, held, kept, resident(), len(last))
"""

SHARED = """
import ctypes
import sys
import threading

from rc_grpo import process

if sys.argv[1] == "flat":
    process.keep_memory_flat()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
together = threading.Barrier(4)


def allocate():
    block = library.malloc(1000)
    together.wait()
    library.free(block)


threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library.fopen.restype, library.malloc_info.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
library.fclose.argtypes = (ctypes.c_void_p,)
file = library.fopen(sys.argv[2].encode(), b"w")
library.malloc_info(0, file)
library.fclose(file)
"""


def test_freed_memory_goes_back_although_something_lies_above_it() -> None:
    """Of 190 MB that are filled and freed, one block on top stays."""
    done = subprocess.run([sys.executable, "-c", TRIMMED], check=True, capture_output=True, text=True, timeout=60)
    before, held, kept, after, _ = (float(word) for word in done.stdout.split())
    assert held > before + 150
    assert kept > before + 150, "glibc gave the memory back by itself: the thread has nothing to do any more"
    assert after < before + 20


def test_what_a_thread_frees_lies_where_every_other_takes_from(tmp_path: Path) -> None:
    """Heaps as glibc itself counts them."""

    def heaps(how: str) -> int:
        report = tmp_path / how
        subprocess.run([sys.executable, "-c", SHARED, how, str(report)], check=True, timeout=60)
        return report.read_text().count("<heap nr=")

    assert heaps("as it is") > 1, "threads share a heap by themselves: nothing has to be set any more"
    assert heaps("flat") == 1


@pytest.mark.parametrize(("share", "device", "given"), [(0.5, "cuda", 1), (1, "cuda", 0), (0, "cpu", 0)])
def test_only_who_shares_a_gpu_hands_its_memory_back(
    share: float, device: str, given: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[None]()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(None))
    hand_back(Resources(num_gpus=share), torch.device(device))
    assert len(calls) == given
