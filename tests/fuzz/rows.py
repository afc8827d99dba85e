"""Rows of data sets: every fault is found without an error, `skip` skips, and what is accepted can be used."""

import io
import json
import tempfile
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import reject
from hypothesis import strategies as st
from PIL import Image

from rc_grpo.config import TaskSource
from rc_grpo.config.editor import MOST_SOURCES
from rc_grpo.data import DataError, TaskSet, faults, load_tasks
from rc_grpo.data.fingerprint import Fingerprint
from rc_grpo.data.refusals import Refusal
from rc_grpo.images import decode_rgb, size_of
from tests.fuzz.images import SAMPLES, mend_png
from tests.fuzz.masks import HEIGHT, WIDTH
from tests.fuzz.mutations import TEXTS, VALUES, Draw, json_texts, mutated_bytes, trees
from tests.fuzz.run_lengths import compressed, runs_of
from tests.fuzz.target import Refused, Target, ask

_INSIDE = np.zeros((HEIGHT, WIDTH), dtype=bool)
_INSIDE[1:4, 2:7] = True


def _png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


SOURCE = _png(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
MASK = _png(np.where(_INSIDE, 255, 0).astype(np.uint8))
RUNS = {"size": [HEIGHT, WIDTH], "counts": compressed(runs_of(_INSIDE))}
ROW = {"task_id": "a", "kind": "add", "source": "source.png", "instruction": "Add a cat", "mask": "mask.png"}
FULL = ROW | {"target": "target.png", "caption": "a cat", "mask": RUNS, "references": ["target.png", "source.png"]}

_PATHS = st.sampled_from(
    ["source.png", "source.png/", "./source.png", "../source.png", "/etc/passwd", "a/../../x", ".", "..", "//", "\x00",
     "x" * 300, "x/" * 3000, "link.png", "folder", "data:image/png;base64,iVBORw0KGgo=", "https://h/x.png", "odd.img",
     "source.png\n", "~", "C:\\x.png", "iVBORw0KGgo" + "A" * 400, "1 2 3", "loop.png", "pipe.png"]
)  # fmt: skip
_CELLS = st.one_of(_PATHS, TEXTS, VALUES, st.just(RUNS), trees(RUNS), st.builds(json.dumps, trees(RUNS)))
_OPTIONS = st.fixed_dictionaries(
    {
        "mask_format": st.sampled_from(["auto", "auto", "auto", "image", "alpha", "rle"]),
        "invert_mask": st.booleans(),
        "limit": st.sampled_from([None, None, 1]),
    }
)


@st.composite
def _lines(draw: Draw) -> bytes:
    lines = []
    for number in range(draw(st.integers(1, 3))):
        row: dict[str, Any] = dict(draw(st.sampled_from([ROW, FULL]))) | {"task_id": f"t{number}"}
        for field in draw(st.lists(st.sampled_from(sorted(FULL)), max_size=2)):
            row[field] = draw(_CELLS)
        lines.append(draw(st.one_of(st.just(json.dumps(row)), st.just(json.dumps(row)), json_texts(row))))
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    return draw(st.one_of(st.just(data), st.just(data), st.just(data), mutated_bytes([data])))


_IMAGES = st.sampled_from(
    [{"bytes": SOURCE, "path": None}, *({"bytes": None, "path": path} for path in ("source.png", None))]
)
_ARROW = {
    "string": (pa.string(), TEXTS.map(lambda text: text.encode("utf-8", "replace").decode()) | st.just("Add a cat")),
    "large": (pa.large_string(), st.just("Add a cat")),
    "binary": (pa.binary(), st.sampled_from([SOURCE, MASK, b"Add a cat", b"\xff\xfe", b""]) | st.binary(max_size=9)),
    "image": (pa.struct({"bytes": pa.binary(), "path": pa.string()}), _IMAGES),
    "images": (pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})), st.lists(_IMAGES, max_size=4)),
    "list": (pa.list_(pa.string()), st.lists(st.just("Add a cat"), max_size=2)),
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "decimal": (pa.decimal128(38, 2), st.sampled_from([Decimal("1.25"), Decimal(10) ** 30])),
    "nanoseconds": (pa.timestamp("ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
    "seconds": (pa.timestamp("s", "UTC"), st.integers(-(2**60), 2**60)),
    "span": (pa.duration("s"), st.integers(-(2**60), 2**60)),
    "runs": (pa.struct({"size": pa.list_(pa.int64()), "counts": pa.string()}), st.just(RUNS)),
    "map": (pa.map_(pa.string(), pa.string()), st.just([("bytes", "x")])),
    "null": (pa.null(), st.none()),
}  # fmt: skip
_GOOD = {
    "source": ("image", {"bytes": SOURCE, "path": None}),
    "instruction": ("string", "Add a cat"),
    "mask": ("binary", MASK),
}


@st.composite
def _tables(draw: Draw) -> bytes:
    rows = draw(st.integers(1, 3))
    columns: dict[str, pa.Array] = {}
    for field in (
        "source",
        "instruction",
        "mask",
        *draw(st.sets(st.sampled_from(["task_id", "kind", "target", "caption", "references"]))),
    ):
        if field in _GOOD and draw(st.integers(0, 2)):
            kind, cell = _GOOD[field]
            columns[field] = pa.array([cell] * rows, _ARROW[kind][0])
            continue
        form, cells = _ARROW[draw(st.sampled_from(sorted(_ARROW)))]
        drawn = draw(st.lists(st.one_of(st.none(), cells), min_size=rows, max_size=rows))
        columns[field] = pa.array(drawn, form)
        if form == pa.string() and draw(st.booleans()):
            # Text of another encoding, which Arrow holds unseen.
            columns[field] = pa.array([b"caf\xe9"] * rows, pa.binary()).view(pa.string())
    buffer = io.BytesIO()
    try:
        pq.write_table(pa.table(columns), buffer, compression=draw(st.sampled_from(["none", "snappy"])))
    except pa.ArrowException:
        # Times that parquet has no form for.
        reject()
    data = buffer.getvalue()
    return draw(st.one_of(st.just(data), st.just(data), st.just(data), mutated_bytes([data])))


_ENTRIES = [
    {"image_path": "0/a.png", "instruction": "Add a cat", "caption": "a cat"},
    {"image_name": "0/a.png", "instruction": "b"},
]
INPUTS = st.one_of(
    st.tuples(st.just("jsonl"), _lines(), _OPTIONS, mutated_bytes(SAMPLES, mend=mend_png)),
    st.tuples(st.just("parquet"), _tables(), _OPTIONS, st.just(b"")),
    st.tuples(
        st.just("compbench"),
        json_texts(_ENTRIES).map(lambda text: text.encode("utf-8", "surrogatepass")),
        _OPTIONS,
        st.just(b""),
    ),
)

_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz-rows-")


def _root() -> Path:
    root = Path(_FOLDER.name)
    if not (root / "source.png").exists():
        (root / "folder").mkdir()
        for name, data in {"source": SOURCE, "mask": MASK, "target": SOURCE}.items():
            (root / f"{name}.png").write_bytes(data)
        (root / "link.png").symlink_to("source.png")
        (root / "loop.png").symlink_to("loop.png")
        for part, data in {"input_image": SOURCE, "mask": MASK, "edited_image": SOURCE}.items():
            file = root / "tasks/add" / part / "0/a.png"
            file.parent.mkdir(parents=True)
            file.write_bytes(data)
    return root


def check(drawn: tuple[Any, bytes, dict[str, Any], bytes]) -> None:
    form, data, options, odd = drawn
    root = _root()
    (root / "odd.img").write_bytes(odd)
    path = {"jsonl": root / "tasks.jsonl", "parquet": root / "tasks.parquet", "compbench": root / "tasks"}[form]
    (path / "add/metadata.json" if form == "compbench" else path).write_bytes(data)
    source = TaskSource(format=form, path=path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ask(lambda: faults(source, "evaluate"))
        assert all(isinstance(fault, Refusal) and fault.reason for fault in found)
        strict = ask(lambda: load_tasks(source, "evaluate"), DataError)
        lenient = ask(lambda: load_tasks(source.model_copy(update={"on_bad_task": "skip"}), "evaluate"), DataError)
        assert isinstance(strict, TaskSet) == (found == ()), (
            "a fault is told, and the set loads; or the other way round"
        )
        if not isinstance(lenient, TaskSet):
            whole = [fault for fault in found if not fault.task_id or "two tasks have the id" in fault.reason]
            assert whole or "tasks are unusable" in lenient.words or "holds no task" in lenient.words, lenient.words
            return
        assert len({*lenient.row_of}) == len(lenient)
        ask(lambda: Fingerprint.of(lenient))
        for index in range(len(lenient)):
            _usable(lambda index=index: lenient[index], decodes=b"odd.img" not in data and form != "parquet")


def _usable(open_task: Callable[[], Any], *, decodes: bool) -> None:
    # Of an image that was damaged within, only its decoding tells.
    task = ask(open_task, *(() if decodes else (DataError,)))
    if isinstance(task, Refused):
        return
    for text in (task.task_id, task.kind, task.instruction, task.caption):
        assert text is None or text.encode().strip()
    height, width = size_of(task.source)
    assert decode_rgb(task.source).shape == (height, width, 3)
    levels = np.asarray(Image.open(io.BytesIO(task.mask)))
    assert levels.shape == (height, width)
    assert set(np.unique(levels)) <= {0, 255}
    assert (levels == 255).any()
    assert task.target is None or decode_rgb(task.target).ndim == 3
    assert len(task.references) < MOST_SOURCES
    assert all(decode_rgb(reference).ndim == 3 for reference in task.references)


TARGET = Target("rows", INPUTS, check)
