"""Experience out: what an update learned from, one row a candidate, as parquet that anything reads."""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rc_grpo.images import encode_png
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores

Level = Literal["scores", "images", "states"]
ScoredCandidates = tuple[EditTask, CandidateGroup, GroupScores, NDArray[np.floating[Any]], int]
"""Task, its candidates, their scores, their advantages ``[G]`` (NaN: not learned from), the update's number."""

_FORMAT = b"rc_grpo.experience"
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
    "worker": pa.string(),
    "judge": pa.string(),
    "task_reward": pa.float64(),
    "acd_reward": pa.float64(),
    "advantage": pa.float64(),
    "background_drift": pa.float32(),
    "reason": pa.string(),
    "sigmas": pa.list_(pa.float64()),
}
_IMAGES: dict[str, pa.DataType] = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "acd": pa.list_(pa.list_(pa.float32())),
}
_STATES: dict[str, pa.DataType] = {
    "states": pa.list_(pa.float32()),
    "states_shape": pa.list_(pa.int32()),
}


def write_experience(path: Path, groups: Sequence[ScoredCandidates], level: Level) -> None:
    """Write scored groups to one parquet file, one row a candidate; the file appears whole or not at all.

    A failed score is NaN in its row. A judge's columns are null where the group was not given to that judge.

    Args:
        path: file to write; one that is there is replaced, its folder is made.
        groups: in the order of the rows.
        level: ``scores`` alone, or with the ``images`` and attention recordings, or with the trajectories as well.

    Raises:
        ValueError: a group's parts do not belong together, or ``states`` are wanted and the group has none.
    """
    schema = _schema(sorted({name for _, _, scores, _, _ in groups for name in scores.columns}), level)
    table = pa.concat_tables([schema.empty_table(), *(_table(group, schema, level) for group in groups)])
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        # A group of rows a group of candidates, where rows are large: looking at one reads no other.
        size = None if level == "scores" else max((group.size for _, group, _, _, _ in groups), default=1)
        pq.write_table(table, unfinished, compression="zstd", row_group_size=size)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_experience(path: Path) -> pa.Table:
    """Read a file of `write_experience`; its schema's metadata tell the level.

    Raises:
        ValueError: it is another kind of parquet file.
    """
    table = pq.read_table(path, partitioning=None)
    if _FORMAT not in (table.schema.metadata or {}):
        raise ValueError(f"{path} holds no experience: no {_FORMAT.decode()!r} in its metadata")
    return table


def _schema(judged: Sequence[str], level: Level) -> pa.Schema:
    fields = _SCORES | {name: pa.float64() for name in judged}
    if level != "scores":
        fields |= _IMAGES
    if level == "states":
        fields |= _STATES
    metadata = {
        _FORMAT: json.dumps({"version": 1, "level": level}),
        # With this, Hugging Face's `datasets` and its viewer show the image instead of its bytes.
        b"huggingface": json.dumps({"info": {"features": {name: _feature(kind) for name, kind in fields.items()}}}),
    }
    return pa.schema(list(fields.items()), metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == _IMAGES["image"]:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "Sequence", "feature": _feature(kind.value_type)}
    names = {"float": "float32", "double": "float64"}
    return {"_type": "Value", "dtype": names.get(str(kind), str(kind))}


def _table(group: ScoredCandidates, schema: pa.Schema, level: Level) -> pa.Table:
    task, candidates, scores, advantages, update = group
    _require_match(group, level)
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
        "worker": [candidates.worker] * size,
        "judge": [scores.judge] * size,
        "task_reward": scores.task_reward,
        "acd_reward": scores.acd_reward,
        "advantage": np.asarray(advantages, dtype=np.float64),
        "background_drift": candidates.background_drift,
        "reason": list(scores.reasons) or [None] * size,
        "sigmas": [candidates.sigmas] * size,
        **scores.columns,
    }
    if level != "scores":
        columns["image"] = [
            {"bytes": encode_png(image), "path": f"{update}-{i}.png"} for i, image in enumerate(candidates.images)
        ]
        columns["acd"] = None if candidates.acd is None else [list(layers) for layers in candidates.acd]
    if level == "states":
        assert candidates.states is not None
        columns["states"] = list(candidates.states.reshape(size, -1))
        columns["states_shape"] = [candidates.states.shape[1:]] * size
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        # `from_pandas` would turn NaN into null, and a failed score is to stay what it was.
        arrays.append(pa.nulls(size, field.type) if values is None else pa.array(values, field.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=schema)


def _require_match(group: ScoredCandidates, level: Level) -> None:
    task, candidates, scores, advantages, _ = group
    if len({task.task_id, candidates.task_id, scores.task_id}) > 1:
        raise ValueError(
            f"task {task.task_id!r}, candidates of {candidates.task_id!r} and scores of {scores.task_id!r} "
            "do not belong together"
        )
    counts = {
        "images": candidates.size,
        "seeds": candidates.seeds.group_size,
        "task rewards": len(scores.task_reward),
        "advantages": len(advantages),
    }
    if len(set(counts.values())) > 1:
        raise ValueError(f"task {task.task_id!r}: {', '.join(f'{count} {name}' for name, count in counts.items())}")
    if level == "states" and candidates.states is None:
        raise ValueError(f"task {task.task_id!r}: level `states` is wanted, but the group came without states")
