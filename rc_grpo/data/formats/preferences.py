"""Pairs of edits of which people preferred one, in EditReward-Bench's layout (arXiv 2509.26346).

A row is a comparison: ``source_image``, ``instruction``, ``candidate_1``, ``candidate_2``, ``ranking`` (``A>B``) and,
where candidates have other letters than A and B, ``comparison_type`` (``AvsC``). ``id`` and ``dataset`` (``2pair``)
name the row and its part of the benchmark. ``mask`` and ``caption`` are ours.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rc_grpo.data.errors import DataError, reading, shortened
from rc_grpo.data.formats.json_text import BOM, parse, refuse_one_value, sniff
from rc_grpo.data.picture import picture
from rc_grpo.data.text import read_id, read_text
from rc_grpo.images import encode_png, size_of
from rc_grpo.messages import EditTask

Preference = Literal[-1, 0, 1]

REQUIRED = ("source_image", "instruction", "candidate_1", "candidate_2", "ranking")
_OPTIONAL = ("id", "dataset", "comparison_type", "mask", "caption")
_RANKING = re.compile(r"\s*([A-D])\s*(<|>|==?)\s*([A-D])\s*(?:=\s*(?:Good|Bad)\s*)?", re.IGNORECASE)
_COMPARISON = re.compile(r"\s*([A-D])\s*vs\.?\s*([A-D])\s*", re.IGNORECASE)
_SIGNS: Mapping[str, Preference] = {">": 1, "=": 0, "==": 0, "<": -1}
_BATCH = 16


@dataclass(frozen=True)
class Pair:
    """One comparison.

    Attributes:
        place: where it stands, in words for an error message.
        subset: part of the benchmark; empty where none is named.
        group: the same for all comparisons of one source and instruction within a subset.
        task: what was to be edited; without a mask of its own, its mask is the whole image.
        candidates: the two edits, encoded.
        human: 1 where people preferred the first, -1 the second, 0 neither.
    """

    place: str
    subset: str
    group: str
    task: EditTask
    candidates: tuple[bytes, bytes]
    human: Preference


def read_pairs(path: Path) -> Iterator[Pair]:
    """Yield the comparisons of a parquet file, a folder of them, or JSON lines whose images are relative paths.

    Raises:
        DataError: nothing is there, a column is missing, or a row is no comparison; names file, row and reason.
    """
    rows = _jsonl(path) if path.suffix in (".jsonl", ".json") else _parquet(path)
    found = False
    for place, folder, cells in rows:
        found = True
        try:
            yield _pair(place, folder, cells)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from error
    if not found:
        raise DataError(f"{path} holds no pair: it is empty")


def _pair(place: str, folder: Path, cells: Mapping[str, Any]) -> Pair:
    if (instruction := read_text(cells.get("instruction"), "instruction")) is None:
        raise ValueError("the instruction is empty")
    source, first, second = (_image(cells, name, folder) for name in ("source_image", "candidate_1", "candidate_2"))
    mask = picture(cells.get("mask"), folder, "mask")
    subset = read_text(cells.get("dataset"), "dataset") or ""
    digest = hashlib.sha256(b"\0".join((subset.encode(), instruction.encode(), source))).hexdigest()[:16]
    task = EditTask(
        task_id=read_id(cells.get("id")) or digest,
        kind="other",
        source=source,
        instruction=instruction,
        mask=_everywhere(source) if mask is None else mask.read(),
        caption=read_text(cells.get("caption"), "caption"),
    )
    return Pair(place, subset, digest, task, (first, second), _preference(cells))


def _image(cells: Mapping[str, Any], name: str, folder: Path) -> bytes:
    if (found := picture(cells.get(name), folder, name)) is None:
        raise ValueError(f"the {name} is empty")
    found.check()
    return found.read()


def _everywhere(source: bytes) -> bytes:
    return encode_png(np.full(size_of(source), 255, dtype=np.uint8))


def _preference(cells: Mapping[str, Any]) -> Preference:
    ranking, compared = read_text(cells.get("ranking"), "ranking"), cells.get("comparison_type")
    if ranking is None or (found := _RANKING.fullmatch(ranking)) is None:
        raise ValueError(f"the ranking is {shortened(ranking)}; write A>B, B>A or A=B, with the candidates' letters")
    left, sign, right = found[1].upper(), found[2], found[3].upper()
    letters = ("A", "B") if {left, right} == {"A", "B"} else tuple(sorted((left, right)))
    if compared is not None:
        if not isinstance(compared, str) or (both := _COMPARISON.fullmatch(compared)) is None:
            raise ValueError(f"the comparison_type is {shortened(compared)}; write AvsB, with the candidates' letters")
        letters = (both[1].upper(), both[2].upper())
    if {left, right} != set(letters) or left == right:
        raise ValueError(f"the ranking {shortened(ranking)} is of other candidates than {letters[0]} and {letters[1]}")
    preference = _SIGNS[sign]
    return preference if left == letters[0] else -preference


def _parquet(path: Path) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    with reading(path):
        files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not files or not path.exists():
            raise DataError(f"no parquet file and no .jsonl at {path}")
    for file in files:
        try:
            with pq.ParquetFile(file, pre_buffer=False) as parquet:
                present = parquet.schema_arrow.names
                _require(present, file)
                row = 0
                columns = [name for name in (*REQUIRED, *_OPTIONAL) if name in present]
                for batch in parquet.iter_batches(_BATCH, columns=columns, use_threads=False):
                    for cells in batch.to_pylist():
                        yield f"{file}, row {row}", file.parent, cells
                        row += 1
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is not a readable parquet file: {error}") from error


def _jsonl(path: Path) -> Iterator[tuple[str, Path, Mapping[str, Any]]]:
    start = len(BOM) if sniff(path) else 0
    with reading(path), path.open("rb") as file:
        file.seek(start)
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                cells = parse(line)
            except ValueError as error:
                refuse_one_value(path)
                raise DataError(f"{place}: the line is {error}") from error
            if isinstance(cells, list):
                refuse_one_value(path)
            if not isinstance(cells, dict):
                raise DataError(f"{place}: the line holds no object but a {type(cells).__name__}")
            _require(list(cells), path)
            yield place, path.parent, cells


def _require(present: list[str], file: Path) -> None:
    if missing := [name for name in REQUIRED if name not in present]:
        raise DataError(
            f"{file} has no column {', '.join(missing)}, which EditReward-Bench's layout has; the columns there are: "
            f"{', '.join(sorted(present)) or 'none'}"
        )
