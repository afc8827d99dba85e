"""Masks of every form: what is accepted is a grey PNG of 0 and 255 then, of the source's size, covering something."""

import base64
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from rc_grpo.data.masks import canonical_mask, mask_of
from rc_grpo.data.picture import Picture
from rc_grpo.editor.geometry import binary_mask
from tests.fuzz.images import SAMPLES, mend_png
from tests.fuzz.mutations import VALUES, Draw, mutate_tree, mutated_bytes
from tests.fuzz.run_lengths import compressed, runs_of
from tests.fuzz.target import Refused, Target, ask

HEIGHT, WIDTH = 6, 9
_FORMS = ("auto", "image", "alpha", "rle")
_NOWHERE = Path("/nowhere/of/the/fuzz")


def _encoded(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", **options)
    return buffer.getvalue()


@st.composite
def _levels(draw: Draw) -> bytes:
    """An image of few levels, as masks are."""
    height, width = draw(st.sampled_from([(HEIGHT, WIDTH)] * 4 + [(WIDTH, HEIGHT), (1, 1), (12, 18)]))
    kinds = [[0, 255], [0, 1], [0], [255], [1], [0, 128, 255], [127, 128], [255, 254], [3, 7], range(256)]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = random.choice(np.array(draw(st.sampled_from(kinds)), dtype=np.uint8), (height, width))
    match draw(st.sampled_from(["L", "1", "RGB", "RGBA", "LA", "P", "I;16", "transparency"])):
        case "1":
            return _encoded(levels > 0)
        case "RGB":
            return _encoded(np.dstack([levels] * 3))
        case "RGBA":
            return _encoded(np.dstack([levels, levels // 2, levels, random.permuted(levels)]))
        case "LA":
            return _encoded(np.dstack([levels, random.permuted(levels)]))
        case "P":
            buffer = io.BytesIO()
            Image.fromarray(levels).convert("P").save(buffer, format="PNG")
            return buffer.getvalue()
        case "I;16":
            return _encoded(levels.astype(np.uint16) * draw(st.sampled_from([1, 3, 257])))
        case "transparency":
            return _encoded(levels, transparency=int(levels.flat[0]))
    return _encoded(levels)


@st.composite
def _runs(draw: Draw) -> Any:
    inside = np.random.default_rng(draw(st.integers(0, 99))).random((HEIGHT, WIDTH)) < draw(
        st.sampled_from([0, 0.3, 1])
    )
    runs = runs_of(inside)
    cell = {"size": [HEIGHT, WIDTH], "counts": draw(st.sampled_from([runs, compressed(runs)]))}
    cell = draw(st.sampled_from([cell, None])) or mutate_tree(draw, cell)
    return draw(st.sampled_from([cell, json.dumps(cell)]))


_IMAGES = st.one_of(_levels(), _levels(), mutated_bytes(SAMPLES, mend=mend_png))
_CELLS = st.one_of(
    _IMAGES,
    _runs(),
    st.builds(lambda data: {"bytes": data, "path": "mask.png"}, _IMAGES),
    st.builds(lambda data: base64.b64encode(data).decode(), _levels()),
    st.sampled_from(
        [None, "", b"", "mask.png", "../mask.png", "/etc/passwd", "{", "[0, 1]", "1 2 3 4", "data:image/png;"]
    ),
    VALUES,
)
INPUTS = st.tuples(_CELLS, _IMAGES, st.sampled_from(_FORMS), st.booleans())


def check(drawn: tuple[Any, bytes, Any, bool]) -> None:
    cell, pixels, form, stretch = drawn
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = Picture(pixels, "source")
        mask = ask(lambda: mask_of(cell, _NOWHERE), ValueError)
        if isinstance(mask, Refused):
            return
        found = [
            ask(lambda invert=invert: canonical_mask(mask, source, form, invert=invert, stretch=stretch), ValueError)
            for invert in (False, True)
        ]
    for made in found:
        if isinstance(made, bytes):
            image = Image.open(io.BytesIO(made))
            assert (image.format, image.mode, image.size[::-1]) == ("PNG", "L", source.size())
            levels = np.asarray(image)
            assert set(np.unique(levels)) <= {0, 255}
            assert (levels == 255).any()
            again = canonical_mask(Picture(made, "mask"), source, "image")
            assert again == made, "a canonical mask is passed through"
            assert (binary_mask(made) == (levels == 255)).all()
    # Where scaling is by the nearest pixel, or none, inside and outside are each other's rest.
    if all(isinstance(made, bytes) for made in found):
        one, other = (np.asarray(Image.open(io.BytesIO(made))) for made in found)
        assert (one != other).all(), "inverting does not swap inside and outside"


TARGET = Target("masks", INPUTS, check)
