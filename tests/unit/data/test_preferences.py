"""Human preferences in EditReward-Bench's layout: which candidate people preferred, and rows that are no comparison."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rc_grpo.data.errors import DataError
from rc_grpo.data.formats.preferences import Pair, read_pairs
from rc_grpo.editor.geometry import binary_mask
from rc_grpo.images import encode_png


def image(level: int, side: int = 8) -> bytes:
    return encode_png(np.full((side, side, 3), level, np.uint8))


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "one_AvsB",
        "dataset": "2pair",
        "instruction": "paint it red",
        "source_image": {"bytes": image(0), "path": "source.png"},
        "candidate_1": {"bytes": image(1), "path": None},
        "candidate_2": {"bytes": image(2), "path": None},
        "ranking": "A>B",
        "comparison_type": "AvsB",
    } | changes


def written(folder: Path, *rows: dict[str, Any]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), folder / "pairs.parquet")
    return folder


def only(folder: Path, **changes: Any) -> Pair:
    (pair,) = read_pairs(written(folder, {k: v for k, v in row(**changes).items() if v is not ...}))
    return pair


def test_a_row_is_a_task_two_edits_and_what_people_said(tmp_path: Path) -> None:
    pair = only(tmp_path)
    assert (pair.task.task_id, pair.task.instruction, pair.subset) == ("one_AvsB", "paint it red", "2pair")
    assert (pair.task.source, pair.candidates, pair.human) == (image(0), (image(1), image(2)), 1)
    assert pair.task.target is None
    assert binary_mask(pair.task.mask).shape == (8, 8)
    assert binary_mask(pair.task.mask).all()


@pytest.mark.parametrize(
    ("ranking", "compared", "human"),
    [
        ("A>B", "AvsB", 1),
        ("B>A", "AvsB", -1),
        ("A<B", "AvsB", -1),
        ("A=B", "AvsB", 0),
        ("A==B", "AvsB", 0),
        ("A=B=Good", "AvsB", 0),
        ("A=B=Bad", None, 0),
        ("C>A", "AvsC", -1),
        ("A>C", "AvsC", 1),
        ("D > B", "BvsD", -1),
        ("B>D", None, 1),
        ("D>C", None, -1),
        ("B>A", "BvsA", 1),
        ("b>a", "A vs B", -1),
        ("A>B", None, 1),
    ],
)
def test_whom_people_preferred(tmp_path: Path, ranking: str, compared: str | None, human: int) -> None:
    assert only(tmp_path, ranking=ranking, comparison_type=compared).human == human


def test_columns_that_are_not_needed_may_be_missing(tmp_path: Path) -> None:
    pair = only(tmp_path, id=..., dataset=..., comparison_type=...)
    assert pair.subset == ""
    assert pair.task.task_id == pair.group
    masked = only(tmp_path, mask=encode_png(np.eye(8, dtype=np.uint8) * 255), caption="red")
    assert binary_mask(masked.task.mask).sum() == 8
    assert masked.task.caption == "red"


def test_comparisons_of_one_source_are_a_group(tmp_path: Path) -> None:
    others = [row(), row(ranking="B>A"), row(instruction="paint it blue"), row(dataset="3pair")]
    groups = [pair.group for pair in read_pairs(written(tmp_path, *others))]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 3


def test_json_lines_name_images_by_relative_paths(tmp_path: Path) -> None:
    for name in ("source_image", "candidate_1", "candidate_2"):
        (tmp_path / f"{name}.png").write_bytes(image(len(name)))
    line = row() | {name: f"{name}.png" for name in ("source_image", "candidate_1", "candidate_2")}
    (tmp_path / "mine.jsonl").write_text("\ufeff" + json.dumps(line) + "\n\n" + json.dumps(line | {"ranking": "B>A"}))
    first, second = read_pairs(tmp_path / "mine.jsonl")
    assert (first.human, second.human) == (1, -1)
    assert first.candidates == (image(len("candidate_1")), image(len("candidate_2")))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ranking": "left"}, r"pairs\.parquet, row 0: the ranking is 'left'; write A>B"),
        ({"ranking": None}, "the ranking is None"),
        ({"ranking": "A>B>C"}, "the ranking is 'A>B>C'"),
        ({"ranking": "A>A", "comparison_type": None}, "is of other candidates than"),
        ({"ranking": "A>C"}, "'A>C' is of other candidates than A and B"),
        ({"comparison_type": "first"}, "the comparison_type is 'first'"),
        ({"instruction": " "}, "the instruction is empty"),
        ({"candidate_2": {"bytes": b"\x89PNG", "path": None}}, "the candidate_2 is not a readable image"),
        ({"candidate_1": {"bytes": None, "path": "/etc/passwd"}}, "leaves the data set's folder"),
        ({"source_image": {"bytes": None, "path": None}}, "the source_image is empty"),
        ({"mask": "no.png"}, "the mask: cannot read"),
    ],
)
def test_a_row_that_is_no_comparison_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        only(tmp_path, **changes)


def test_data_of_another_layout_or_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no parquet file and no \.jsonl at"):
        next(read_pairs(tmp_path))
    with pytest.raises(DataError, match=r"cannot read|no parquet"):
        next(read_pairs(tmp_path / "none.parquet"))
    with pytest.raises(
        DataError, match="has no column ranking, which EditReward-Bench's layout has; the columns there"
    ):
        only(tmp_path, ranking=...)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a readable parquet file"):
        list(read_pairs(tmp_path / "bad.parquet"))
    (tmp_path / "a.json").write_text("[\n{}\n]")
    with pytest.raises(DataError, match="is one JSON array"):
        list(read_pairs(tmp_path / "a.json"))
    (tmp_path / "b.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no pair"):
        list(read_pairs(tmp_path / "b.jsonl"))
    (tmp_path / "c.jsonl").write_text('{"ranking": "A>B"}')
    with pytest.raises(DataError, match="has no column source_image, instruction"):
        list(read_pairs(tmp_path / "c.jsonl"))
