"""Experience out: what an update learned from, one row a candidate, as parquet that anything reads."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rc_grpo.data.log import explored as explored_cell
from rc_grpo.data.log.conditions import pack_conditions
from rc_grpo.images import encode_png
from rc_grpo.messages import CandidateGroup, Conditions, EditTask, GroupScores
from rc_grpo.seeds import GENERATOR

Level = Literal["scores", "images", "states"]

_FORMAT = b"rc_grpo.experience"
_VERSION = 2
_SCORES: dict[str, pa.DataType] = {
    "update": pa.int64(),
    "task_id": pa.string(),
    "kind": pa.string(),
    "instruction": pa.string(),
    "candidate": pa.int32(),
    "seed": pa.int64(),
    "is_reference": pa.bool_(),
    "policy_number": pa.int64(),
    "policy_digest": pa.string(),
    "policy_modules": pa.int32(),
    "policy_is_identity": pa.bool_(),
    "worker": pa.string(),
    "judge": pa.string(),
    "task_reward": pa.float64(),
    "acd_reward": pa.float64(),
    "advantage": pa.float64(),
    "background_drift": pa.float32(),
    "reason": pa.string(),
    "sigmas": pa.list_(pa.float64()),
    "token_mask": pa.list_(pa.bool_()),
}
_IMAGES: dict[str, pa.DataType] = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "acd": pa.list_(pa.list_(pa.float32())),
}
_STATES: dict[str, pa.DataType] = {
    "states": pa.list_(pa.float32()),
    "states_shape": pa.list_(pa.int32()),
    "conditions": pa.binary(),
}
_BEYOND: dict[Level, frozenset[str]] = {
    "scores": frozenset(_IMAGES | _STATES),
    "images": frozenset(_STATES),
    "states": frozenset(),
}
"""Columns that only higher levels have."""

PRUNED = "pruned"
"""Column that tells which candidates no judge was asked about, where there are any."""


@dataclass(frozen=True, eq=False)
class ScoredCandidates:
    """What an update learned from one task.

    Attributes:
        task: what was to be edited.
        candidates: the edits.
        scores: what the judges made of them.
        advantages: ``[G]``; NaN where a candidate was not learned from.
        update: the update's number, 1-based.
        conditions: of the task; level ``states`` wants them, as nobody can learn from states alone.
    """

    task: EditTask
    candidates: CandidateGroup
    scores: GroupScores
    advantages: NDArray[np.floating[Any]]
    update: int
    conditions: Conditions | None = None


def write_experience(path: Path, groups: Sequence[ScoredCandidates], level: Level) -> None:
    """Write scored groups to one parquet file, one row a candidate; the file appears whole or not at all.

    A failed score is NaN in its row. A candidate that was pruned has NaN too, and a column says so where any was. A
    judge's columns are null where the group was not given to that judge. What is the whole group's and large (token
    mask, conditions, the pool that it was chosen from: `rc_grpo.data.log.explored`) stands in the row of candidate 0
    and is null in the others.

    Args:
        path: file to write; one that is there is replaced, its folder is made.
        groups: in the order of the rows.
        level: ``scores`` alone, or with the ``images`` and attention recordings, or also with all that a learner takes:
            the trajectories and conditions.

    Raises:
        ValueError: a group's parts do not belong together, or ``states`` are wanted and the group has none.
    """
    schema = _schema(
        sorted({name for group in groups for name in group.scores.columns}),
        level,
        pruning=any(group.scores.pruned for group in groups),
        explored=sorted(
            {name for group in groups if (pool := group.scores.explored) is not None for name in pool.rewards}
        ),
    )
    tables = [_table(group, schema, level) for group in groups]
    if level == "scores":
        tables = [pa.concat_tables([schema.empty_table(), *tables])]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with pq.ParquetWriter(unfinished, schema, compression="zstd", write_page_checksum=True) as writer:
            # A group of rows a group of candidates, where rows are large: looking at one reads no other.
            for table in tables:
                writer.write_table(table)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_experience(
    path: Path, task_id: str | None = None, columns: Sequence[str] | None = None, *, most: Level = "states"
) -> pa.Table:
    """Read a file of `write_experience` as a table; `rc_grpo.data.log.logged` makes groups of it.

    Args:
        path: the file.
        task_id: read this task's rows alone.
        columns: read these alone.
        most: read nothing that only a higher level has.

    Raises:
        ValueError: it is another kind of file, damaged, or without a column that it should have.
    """
    rows = None if task_id is None else [("task_id", "=", task_id)]
    try:
        schema = pq.read_schema(path)
        if _FORMAT not in (schema.metadata or {}):
            raise ValueError(f"{path} holds no experience: no {_FORMAT.decode()!r} in its metadata")
        _require_columns(path, schema)
        if columns is None and most != "states":
            columns = [name for name in schema.names if name not in _BEYOND[most]]
        # One bit of a reward or a weight that flipped on the disk is no error to parquet without its checksums.
        return pq.read_table(
            path,
            partitioning=None,
            filters=rows,
            columns=None if columns is None else list(columns),
            page_checksum_verification=True,
        )
    except (pa.ArrowException, OSError) as error:
        raise damaged_log(path, error) from error


def damaged_log(path: Path, error: Exception) -> ValueError:
    """Return what is said of a file of the log that cannot be read as what it was written as."""
    said = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())[:300]
    return ValueError(f"{path} is damaged ({said}); bring it back from a copy, or remove it")


def level_of(table: pa.Table) -> Level:
    """Return the level at which a table of `read_experience` was written.

    Raises:
        ValueError: an earlier version wrote it; what its rows hold does not make a group.
    """
    version, level = _header(table.schema)
    if version != _VERSION:
        raise ValueError(f"the experience has format {version}, and groups are read from format {_VERSION}")
    return level


def generator_of(table: pa.Table) -> str:
    """Return what a table of `read_experience` says that made numbers of its seeds, see `rc_grpo.seeds.GENERATOR`."""
    return str(json.loads(table.schema.metadata[_FORMAT]).get("generator", "torch's Mersenne Twister"))


def _header(schema: pa.Schema) -> tuple[int, Level]:
    header = json.loads(schema.metadata[_FORMAT])
    found = header if isinstance(header, dict) else {}
    version, level = found.get("version"), found.get("level")
    for known in get_args(Level):
        if isinstance(version, int) and level == known:
            return version, known
    raise ValueError(f"no version and level in its metadata, but {header!r:.60}")


def _require_columns(path: Path, schema: pa.Schema) -> None:
    """Make sure that a file has the columns that one of its version and level was written with."""
    try:
        version, level = _header(schema)
        if version != _VERSION:
            return
        judged = [name for name in schema.names if name.startswith(("reward.", "judge."))]
        for field in _schema(judged, level):
            there = [schema.field(index).type for index in schema.get_all_field_indices(field.name)]
            if there != [field.type]:
                raise ValueError(
                    f"column {field.name!r} is {', '.join(map(str, there)) or 'missing'}, not {field.type}"
                )
    except (ValueError, RecursionError) as error:
        raise damaged_log(path, error) from error


def _schema(judged: Sequence[str], level: Level, *, pruning: bool = False, explored: Sequence[str] = ()) -> pa.Schema:
    fields = _SCORES | {name: pa.float64() for name in judged}
    fields |= {PRUNED: pa.bool_()} if pruning else {}
    fields |= {explored_cell.COLUMN: explored_cell.kind(explored)} if explored else {}
    if level != "scores":
        fields |= _IMAGES
    if level == "states":
        fields |= _STATES
    metadata = {
        _FORMAT: json.dumps({"version": _VERSION, "level": level, "generator": GENERATOR}),
        # With this, Hugging Face's `datasets` and its viewer show the image instead of its bytes.
        b"huggingface": json.dumps({"info": {"features": {name: _feature(kind) for name, kind in fields.items()}}}),
    }
    return pa.schema(list(fields.items()), metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == _IMAGES["image"]:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"_type": "Sequence", "feature": _feature(kind.value_type)}
    names = {"float": "float32", "double": "float64"}
    return {"_type": "Value", "dtype": names.get(str(kind), str(kind))}


def _table(group: ScoredCandidates, schema: pa.Schema, level: Level) -> pa.Table:
    _require_match(group, level)
    task, candidates, scores, update = group.task, group.candidates, group.scores, group.update
    size = candidates.size
    index = np.arange(size, dtype=np.int32)
    columns: dict[str, Any] = {
        "update": [update] * size,
        "task_id": [task.task_id] * size,
        "kind": [task.kind] * size,
        "instruction": [task.instruction] * size,
        "candidate": index,
        "seed": [candidates.seeds.reference, *candidates.seeds.deltas],
        "is_reference": index == 0,
        "policy_number": [candidates.policy.number] * size,
        "policy_digest": [candidates.policy.digest] * size,
        "policy_modules": [candidates.policy.modules] * size,
        "policy_is_identity": [candidates.policy.is_identity] * size,
        "worker": [candidates.worker] * size,
        "judge": [scores.judge] * size,
        "task_reward": scores.task_reward,
        "acd_reward": scores.acd_reward,
        "advantage": np.asarray(group.advantages, dtype=np.float64),
        "background_drift": candidates.background_drift,
        "reason": list(scores.reasons) or [None] * size,
        "sigmas": [candidates.sigmas] * size,
        "token_mask": [candidates.token_mask] + [None] * (size - 1),
        PRUNED: np.isin(index, scores.pruned),
        **scores.columns,
    }
    if scores.explored is not None:
        columns[explored_cell.COLUMN] = [explored_cell.to_cell(scores.explored)] + [None] * (size - 1)
    if level != "scores":
        columns["image"] = [
            {"bytes": encode_png(image), "path": f"{update}-{i}.png"} for i, image in enumerate(candidates.images)
        ]
        columns["acd"] = None if candidates.acd is None else [list(layers) for layers in candidates.acd]
    if level == "states":
        assert candidates.states is not None
        assert group.conditions is not None
        columns["conditions"] = [pack_conditions(group.conditions)] + [None] * (size - 1)
        columns["states"] = list(candidates.states.reshape(size, -1))
        columns["states_shape"] = [candidates.states.shape[1:]] * size
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        # `from_pandas` would turn NaN into null, and a failed score is to stay what it was.
        arrays.append(pa.nulls(size, field.type) if values is None else pa.array(values, field.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=schema)


def _require_match(group: ScoredCandidates, level: Level) -> None:
    task, candidates, scores = group.task, group.candidates, group.scores
    if len({task.task_id, candidates.task_id, scores.task_id}) > 1:
        raise ValueError(
            f"task {task.task_id!r}, candidates of {candidates.task_id!r} and scores of {scores.task_id!r} "
            "do not belong together"
        )
    counts = {
        "images": candidates.size,
        "seeds": candidates.seeds.group_size,
        "task rewards": len(scores.task_reward),
        "advantages": len(group.advantages),
    }
    if len(set(counts.values())) > 1:
        raise ValueError(f"task {task.task_id!r}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    for part, there in (("states", candidates.states), ("conditions", group.conditions)):
        if level == "states" and there is None:
            raise ValueError(f"task {task.task_id!r}: level `states` is wanted, but the group came without {part}")
