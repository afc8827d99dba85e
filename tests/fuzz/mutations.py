"""Mutations of valid inputs: of bytes, of JSON trees and of their text. What is random alone is refused at the door."""

import copy
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

TEXTS = st.one_of(
    st.sampled_from(["", " ", "\u200b", "\x00", "\ud83d", "\udcff", "\u202e", "</script><b>", "1", "NaN", "x" * 5000]),
    st.text(st.characters(exclude_categories=()), max_size=12),
)
"""Texts with half surrogates, controls and marks that turn the direction."""

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**53, 2**63, 2**64, -(2**63), 10**30, 10**400, 1e308, 1e-320, 0.5, -0.0]),
    st.floats(),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
"""Whatever JSON can hold."""


def _places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner: Sequence[tuple[Any, Any]] = ()
    if isinstance(tree, dict):
        inner = list(tree.items())
    elif isinstance(tree, list):
        # The ends of a long list are enough.
        inner = [(index, tree[index]) for index in sorted({*range(len(tree))[:4], *range(len(tree))[-2:]})]
    return [path, *(place for key, value in inner for place in _places(value, (*path, key)))]


def mutate_tree(draw: Draw, tree: Any, *, at_most: int = 3) -> Any:
    """Return a JSON tree with some of its places replaced, removed, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, at_most))):
        *above, last = draw(st.sampled_from(_places(tree))) or (None,)
        if last is None:
            if draw(st.integers(0, 9)) == 0:
                return draw(VALUES)
            continue
        node = tree
        for key in above:
            node = node[key]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "wrap"]))
        if what == "replace":
            node[last] = draw(VALUES)
        elif what == "remove":
            del node[last]
        elif what == "wrap":
            node[last] = [node[last]]
        elif isinstance(node, dict):
            node[draw(TEXTS)] = draw(VALUES)
        else:
            node.insert(last, draw(VALUES))
    return tree


@st.composite
def trees(draw: Draw, valid: Any) -> Any:
    """Mutations of a JSON tree."""
    return mutate_tree(draw, valid)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@st.composite
def json_texts(draw: Draw, valid: Any) -> str:
    """Texts of mutated trees; some with what only text can say: depth, digits, a key twice, a broken end."""
    text = json.dumps(draw(st.one_of(st.just(valid), trees(valid))), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        match draw(st.sampled_from(["cut", "insert", "insert", "value", "drop"])):
            case "cut":
                text = text[:at]
            case "drop":
                text = text[:at] + text[at + draw(st.integers(1, 5)) :]
            case "insert":
                text = text[:at] + draw(st.sampled_from([*'{}[],:"\\0 -eNI', "\\ud83d", "\\u0000", "\x00"])) + text[at:]
            case "value":
                before, colon, after = text.rpartition(": ")
                odd = [_nested(n) for n in (20, 300, 960, 1500, 30_000)] + ["9" * 5000, "1e999", "-Infinity", "NaN"]
                text = before + colon + draw(st.sampled_from(odd)) + after[-1:]
    return text


_WORDS = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"\0\0\0\1",
    b"\1\0\0\0",
]


@st.composite
def mutated_bytes(draw: Draw, valid: Sequence[bytes], *, mend: Callable[[bytes], bytes] = bytes) -> bytes:
    """Bytes of valid files, flipped, cut, spliced and overwritten, at their heads more often than elsewhere.

    Args:
        valid: to begin with.
        mend: makes checksums right again, without which no mutation passes the first of them; drawn half of the time.
    """
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(0, 4))):
        size = len(data)
        at = draw(st.one_of(st.integers(0, min(size, 96)), st.integers(0, size)))
        match draw(st.sampled_from(["flip", "flip", "set", "set", "cut", "drop", "double", "splice", "insert"])):
            case "flip" if at < size:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                word = draw(st.sampled_from(_WORDS) | st.binary(min_size=1, max_size=4))
                data[at : at + len(word)] = word
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 40))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "splice":
                other = draw(st.sampled_from(valid))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case "insert":
                data[at:at] = draw(st.binary(max_size=24))
    return mend(bytes(data)) if draw(st.booleans()) else bytes(data)


@st.composite
def mutated_headers(draw: Draw, data: bytes) -> bytes:
    """A safetensors file whose header is a mutated tree, its length right or wrong."""
    length = int.from_bytes(data[:8], "little")
    text = draw(json_texts(json.loads(data[8 : 8 + length])))
    header = text.encode("utf-8", "surrogatepass")
    said = draw(st.sampled_from([len(header)] * 8 + [0, 2**63, len(header) - 1, len(data) * 2]))
    return struct.pack("<Q", max(0, said)) + header + data[8 + length :]


def in_one_line(value: Any) -> str:
    """Return an input as a report shows it."""
    text = repr(value)
    return text if len(text) <= 2000 else f"{text[:1500]}... (repr of {len(text)} characters)"
