"""Run lengths: whatever is accepted decodes as a decoder by hand decodes it."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from rc_grpo.data.rle import Rle
from rc_grpo.images import MAX_PIXELS
from tests.fuzz.mutations import Draw, mutate_tree, mutated_bytes
from tests.fuzz.target import Target, ask


def runs_of(mask: np.ndarray) -> list[int]:
    """Column by column, a run outside first."""
    runs, inside = [0], False
    for pixel in mask.T.flatten().tolist():
        if pixel != inside:
            inside = pixel
            runs.append(0)
        runs[-1] += 1
    return runs


def compressed(runs: list[int]) -> str:
    """COCO's string, as its own C code writes it."""
    text = ""
    for index, run in enumerate(runs):
        rest = run - (runs[index - 2] if index > 2 else 0)
        more = True
        while more:
            bits = rest & 0x1F
            rest >>= 5
            more = rest != -1 if bits & 0x10 else rest != 0
            text += chr((bits | 0x20 if more else bits) + 48)
    return text


def decoded(height: int, width: int, counts: Any) -> list[list[bool]] | None:
    """Decode a pixel at a time, or return None where the runs do not fill the mask."""
    runs = [int(count) for count in counts] if isinstance(counts, list | tuple) else _uncompressed(counts)
    if runs is None or min(runs, default=0) < 0 or sum(runs) != height * width:
        return None
    pixels = [index % 2 == 1 for index, run in enumerate(runs) for _ in range(run)]
    return [[pixels[column * height + row] for column in range(width)] for row in range(height)]


def _uncompressed(text: str) -> list[int] | None:
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            if place == len(text):
                return None
            bits = ord(text[place]) - 48
            if not 0 <= bits < 64:
                return None
            value += (bits & 0x1F) * 32**shift
            more = bool(bits & 0x20)
            place, shift = place + 1, shift + 1
            if not more and bits & 0x10:
                value -= 32**shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


@st.composite
def _cells(draw: Draw) -> Any:
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = random.random((height, width)) < draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    runs = runs_of(mask)
    cell: Any = {"size": [height, width], "counts": draw(st.sampled_from([runs, compressed(runs)]))}
    kind = draw(st.sampled_from(["as it is", "tree", "text", "huge"]))
    if kind == "tree":
        return mutate_tree(draw, cell)
    if kind == "text":
        cell["counts"] = draw(mutated_bytes([compressed(runs).encode()]))
        return cell if draw(st.booleans()) else cell | {"counts": cell["counts"].decode("latin-1")}
    if kind == "huge":
        side = draw(st.sampled_from([8193, 2**20, 2**31, 2**53, 10**6]))
        return {
            "size": [side, side],
            "counts": draw(st.sampled_from([[side * side], [0, side * side], compressed([side * side])])),
        }
    return cell


def check(cell: Any) -> None:
    if not isinstance(cell, dict):
        return
    parsed = ask(lambda: Rle.parse(cell), ValueError)
    if not isinstance(parsed, Rle):
        return
    mask = ask(parsed.decode, ValueError)
    if not isinstance(mask, np.ndarray):
        if parsed.height * parsed.width <= 10_000:
            assert decoded(parsed.height, parsed.width, parsed.counts) is None, f"refused a whole mask: {mask.words}"
        return
    assert mask.dtype == np.bool_
    assert mask.shape == (parsed.height, parsed.width)
    assert mask.size <= MAX_PIXELS
    if mask.size <= 10_000:
        assert mask.tolist() == decoded(parsed.height, parsed.width, parsed.counts)


TARGET = Target("run_lengths", _cells(), check)
