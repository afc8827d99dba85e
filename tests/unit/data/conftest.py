import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rc_grpo.config import TaskSource
from rc_grpo.images import encode_png

HEIGHT, WIDTH = 24, 32
BOX = (slice(4, 12), slice(6, 20))


def photo(seed=0, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def region(height=HEIGHT, width=WIDTH):
    inside = np.zeros((height, width), dtype=bool)
    inside[BOX] = True
    return inside


def png(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG", **options)
    return buffer.getvalue()


SOURCE = png(photo(1))
TARGET = png(photo(2))
MASK = encode_png(np.where(region(), np.uint8(255), np.uint8(0)))


def rgba(colours, transparent):
    return png(np.dstack([colours, np.where(transparent, 0, 255).astype(np.uint8)]))


def decoded(mask):
    return np.asarray(Image.open(io.BytesIO(mask))) > 0


def reason_of(look):
    """Return what a ValueError says, or None where there is none; any other error is one of ours."""
    try:
        look()
    except ValueError as error:
        return str(error)
    return None


@pytest.fixture
def lines(tmp_path):
    """Write a jsonl file of good tasks, each changed by one mapping, and the images they name."""

    def write(*changes, files=None):
        contents = {"source.png": SOURCE, "mask.png": MASK, "target.png": TARGET, **(files or {})}
        for name, data in contents.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        good = {"source": "source.png", "mask": "mask.png", "instruction": "Add a cat", "kind": "add"}
        rows = [good | {"task_id": f"t{i}"} | change for i, change in enumerate(changes)]
        path = tmp_path / "tasks.jsonl"
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
        return path

    return write


@pytest.fixture
def table(tmp_path):
    """Write a parquet file of columns."""

    def write(name="data.parquet", row_group_size=None, **columns):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
        return path

    return write


@pytest.fixture
def compbench(tmp_path):
    """Write CompBench's folders with `count` tasks of every family."""

    def write(count=2, families=("add", "remove", "replace"), mask=MASK):
        for family in families:
            names = [f"{i:08x}/0/{i:05d}.png" for i in range(count)]
            for folder, data in (("input_image", SOURCE), ("mask", mask), ("edited_image", TARGET)):
                for name in names:
                    file = tmp_path / "tasks" / family / folder / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data)
            entries = [{"image_path": name, "instruction": f"{family} it", "caption": "a cat"} for name in names]
            (tmp_path / "tasks" / family / "metadata.json").write_text(json.dumps(entries))
        return tmp_path / "tasks"

    return write


def image_feature(*images):
    return [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)]


def source_of(path: Path, form: str | None = None, **options) -> TaskSource:
    return TaskSource(format=form or path.suffix.removeprefix("."), path=path, **options)
