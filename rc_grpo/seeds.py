"""Counter-based random numbers: each of a run's is a function of names and counters, never of execution order.

A stateful generator ties a result to who drew before; with a pool of workers that is whoever happened to be free. Here
a seed is a digest of *what it is for* -- ``derive(run_seed, "delta", iteration, task_id, candidate)`` -- so any worker,
any number of workers and any replay draw the same numbers.

The seed is the key of Philox4x64-10, whole: seeds that differ in any bit have streams of their own. (Of the seed of
torch's CPU generator 32 bits count, and among the noises of a long run two are equal before long.) What is made of its
words takes additions, multiplications, divisions and square roots alone, which IEEE 754 rounds alike everywhere, so
the bits are the same on every machine and under every version of numpy; a logarithm or a cosine is another number on
another processor.
"""

import hashlib
from collections.abc import Sequence
from operator import index

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

GENERATOR = "philox4x64-10, normal quantile by Acklam"
"""Name of the way from a seed to its numbers; logs carry it, as the same seeds mean others under another."""

_SEED_BITS = 63
"""Arrow's int64 takes 63 bits without a sign."""

_AT_ONCE = 1 << 15
"""What the arithmetic on so many numbers needs stays in a core's cache."""

# P. J. Acklam's rational approximation of the normal quantile, whose relative error is a fiftieth of float32's.
_TAIL = 0.02425
_NEAR = (-3.969683028665376e01, 2.209460984245205e02, -2.759285104469687e02, 1.383577518672690e02,
         -3.066479806614716e01, 2.506628277459239e00)  # fmt: skip
_UNDER_NEAR = (-5.447609879822406e01, 1.615858368580409e02, -1.556989798598866e02, 6.680131188771972e01,
               -1.328068155288572e01, 1.0)  # fmt: skip
_FAR = (-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e00, -2.549732539343734e00,
        4.374664141464968e00, 2.938163982698783e00)  # fmt: skip
_UNDER_FAR = (7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e00, 3.754408661907416e00, 1.0)
_ARTANH = tuple(1.0 / n for n in range(17, 0, -2))
_LN2, _SQRT_HALF = 0.6931471805599453, 0.7071067811865476

_Floats = NDArray[np.float64]


def derive(*path: int | str) -> int:
    """Return the 63-bit seed of a path of names and counters, for example ``(run_seed, "delta", 3, "task-17", 5)``.

    Elements are tagged with their type and separators within a name are escaped, so ``(1, 2)``, ``(12,)`` and
    ``("1", 2)`` differ, whatever a name is made of.
    """
    text = "\x1f".join(_tagged(part) for part in path)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - _SEED_BITS)


def normal(seed: int, *shape: int) -> Tensor:
    """Draw N(0, 1) numbers of the given shape, float32 on the CPU, from one seed.

    A larger shape begins with the numbers of a smaller one.

    Args:
        seed: from 0 to 2**128 - 1.
        shape: of the result.
    """
    drawn = np.empty(shape, np.float32)
    flat, words = drawn.reshape(-1), np.random.Philox(key=seed)
    for begin in range(0, flat.size, _AT_ONCE):
        part = flat[begin : begin + _AT_ONCE]
        part[:] = _quantile(_centred(words, part.size))
    return torch.from_numpy(drawn)


def uniform(seed: int, *shape: int) -> Tensor:
    """Draw numbers evenly from ``0 <= x < 1``, float32 on the CPU, from one seed; see `normal`.

    They are multiples of 2**-24: more bits would round up to 1.
    """
    drawn = np.empty(shape, np.float32)
    centred = _centred(np.random.Philox(key=seed), drawn.size)
    drawn.reshape(-1)[:] = np.floor((centred + 0.5) * 2.0**24) * 2.0**-24
    return torch.from_numpy(drawn)


def step_noise(seeds: Sequence[int], step: int, *shape: int) -> Tensor:
    """Draw each seed's N(0, 1) numbers of a step ``[len(seeds), *shape]``; those of other steps are independent."""
    return torch.stack([normal(derive(seed, "step", step), *shape) for seed in seeds])


def permutation(seed: int, count: int) -> list[int]:
    """Draw an order of ``0 .. count - 1``, each as likely as any other, from one seed; see `normal`."""
    order: list[int] = np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable").tolist()
    return order


def _tagged(part: int | str) -> str:
    if isinstance(part, str):
        return "str:" + part.replace("\x1e", "\x1e\x1e").replace("\x1f", "\x1e\x1f")
    return f"int:{index(part)}"


def _centred(words: np.random.Philox, count: int) -> _Floats:
    """Return the middles of ``count`` intervals, of 2**32 that fill (-1/2, 1/2), from as many halves of words."""
    halves = words.random_raw((count + 1) // 2).astype("<u8", copy=False).view("<i4")[:count]
    middles = halves.astype(np.float64)
    middles += 0.5
    middles *= 2.0**-32
    return middles


def _quantile(centred: _Floats) -> _Floats:
    """Return the normal quantiles of probabilities less 1/2."""
    square = centred * centred
    found = _polynomial(_NEAR, square)
    found *= centred
    found /= _polynomial(_UNDER_NEAR, square)
    far = np.flatnonzero(square > (0.5 - _TAIL) ** 2)
    root = np.sqrt(-2.0 * _logarithm(0.5 - np.abs(centred[far])))
    found[far] = np.copysign(_polynomial(_FAR, root) / _polynomial(_UNDER_FAR, root), centred[far])
    return found


def _logarithm(x: _Floats) -> _Floats:
    """Return ln x to 14 digits, the same ones everywhere."""
    fraction, exponent = np.frexp(x)
    small = fraction < _SQRT_HALF
    fraction = np.where(small, 2.0 * fraction, fraction)
    ratio = (fraction - 1.0) / (fraction + 1.0)
    return (exponent - small) * _LN2 + 2.0 * ratio * _polynomial(_ARTANH, ratio * ratio)


def _polynomial(coefficients: tuple[float, ...], x: _Floats) -> _Floats:
    """Evaluate by Horner's rule, highest power first; an addition and a multiplication that cannot be fused."""
    value = x * coefficients[0]
    value += coefficients[1]
    for coefficient in coefficients[2:]:
        value *= x
        value += coefficient
    return value
