"""Counter-based seeds: every random number of a run is a function of names and counters, never of execution order.

A stateful generator ties a result to who drew before; with a pool of workers that is whoever happened to be free. Here
a seed is a digest of *what it is for* -- ``derive(run_seed, "delta", iteration, task_id, candidate)`` -- so any worker,
any number of workers and any replay draw the same numbers.
"""

import hashlib

import torch
from torch import Tensor

_SEED_BITS = 63
"""`torch.Generator.manual_seed` and Arrow's int64 both take 63 bits without a sign."""


def derive(*path: int | str) -> int:
    """Return the 63-bit seed of a path of names and counters, for example ``(run_seed, "delta", 3, "task-17", 5)``.

    Elements are tagged with their type, so ``(1, 2)``, ``(12,)`` and ``("1", 2)`` differ.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in path)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _SEED_BITS)


def generator(*path: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive`; the CPU one, because its stream is the same on every machine."""
    return torch.Generator(device="cpu").manual_seed(derive(*path))


def normal(seed: int, *shape: int) -> Tensor:
    """Draw N(0, 1) numbers of the given shape, float32 on the CPU, from one seed."""
    return torch.randn(shape, generator=torch.Generator(device="cpu").manual_seed(seed), dtype=torch.float32)
