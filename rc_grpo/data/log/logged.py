"""Experience back in: the groups of an update as the messages they were, to replay them or to learn from them."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError

from rc_grpo.data.log import explored
from rc_grpo.data.log.conditions import unpack_conditions
from rc_grpo.data.log.experience import PRUNED, Level, damaged_log, generator_of, level_of, read_experience
from rc_grpo.images import decode_rgb
from rc_grpo.messages import CandidateGroup, Conditions, Explored, GroupScores, PolicyVersion, RolloutSeeds

_LEVELS: tuple[Level, ...] = ("scores", "images", "states")


@dataclass(frozen=True, eq=False)
class LoggedGroup:
    """A group as the log keeps it. Arrays are read-only.

    Attributes:
        update: number of the update that it was for, 1-based.
        kind: the task's family.
        instruction: what was to be done.
        level: what was logged.
        candidates: the edits, without ``seconds``. Below level ``states`` without states; at ``scores`` without
            recordings, and its images are ``[G, 0, 0, 3]``.
        scores: what the judges made of them, without attempts and latency.
        advantages: ``[G]`` float64; NaN where a candidate was not learned from.
        conditions: of the task, at level ``states``.
        generator: what made noise of the candidates' seeds, see `rc_grpo.seeds.GENERATOR`.
    """

    update: int
    kind: str
    instruction: str
    level: Level
    candidates: CandidateGroup
    scores: GroupScores
    advantages: NDArray[np.float64]
    conditions: Conditions | None
    generator: str

    @property
    def task_id(self) -> str:
        """The task."""
        return self.candidates.task_id


def read_groups(
    path: Path, *, need: Level = "images", most: Level = "states", task_id: str | None = None
) -> list[LoggedGroup]:
    """Read the groups of a file of `rc_grpo.data.log.experience.write_experience`, bit for bit, in their order.

    Args:
        path: the file.
        need: the least that must have been logged.
        most: read no more than this level has: trajectories are large.
        task_id: read this task's groups alone. An update may hold several, as where an epoch ends within it.

    Raises:
        ValueError: it is another kind of file, damaged, of an earlier version, or less was logged than is needed.
    """
    table = read_experience(path, task_id, most=most)
    level = level_of(table)
    if _LEVELS.index(level) < _LEVELS.index(need):
        raise ValueError(
            f"{path} was logged at level `{level}` and `{need}` is needed here; set output.experience: {need} in the "
            "run that is to be read"
        )
    level = min(level, most, key=_LEVELS.index)
    candidates = table.column("candidate").to_numpy()
    starts = np.flatnonzero(candidates == 0)
    bounds = [*pairwise([*starts, table.num_rows])]
    counted = [np.arange(end - start) for start, end in bounds]
    try:
        if not np.array_equal(candidates, np.concatenate([np.empty(0), *counted])):
            raise ValueError("the candidates of its groups are not 0, 1, 2, ... each")
        return [_group(table.slice(start, end - start), level) for start, end in bounds]
    # What numpy, safetensors and the messages say of a cell that is empty, or not of the size that another one tells.
    except (ValueError, TypeError, LookupError, OverflowError, SafetensorError) as error:
        raise damaged_log(path, error) from error


def _group(rows: pa.Table, level: Level) -> LoggedGroup:
    first = rows.slice(0, 1).select(["update", "kind", "instruction"]).to_pylist()[0]
    return LoggedGroup(
        update=first["update"],
        kind=first["kind"],
        instruction=first["instruction"],
        level=level,
        candidates=_candidates(rows, level),
        scores=_scores(rows),
        advantages=rows.column("advantage").to_numpy(),
        conditions=unpack_conditions(_first(rows, "conditions")) if level == "states" else None,
        generator=generator_of(rows),
    )


def _candidates(rows: pa.Table, level: Level) -> CandidateGroup:
    reference, *deltas = rows.column("seed").to_pylist()
    images = np.empty((rows.num_rows, 0, 0, 3), dtype=np.uint8)
    if level != "scores":
        images = np.stack([decode_rgb(cell["bytes"]) for cell in rows.column("image").to_pylist()])
    return CandidateGroup(
        task_id=_first(rows, "task_id"),
        seeds=RolloutSeeds(reference, tuple(deltas)),
        policy=PolicyVersion(
            number=_first(rows, "policy_number"),
            digest=_first(rows, "policy_digest"),
            modules=_first(rows, "policy_modules"),
            is_identity=_first(rows, "policy_is_identity"),
        ),
        sigmas=np.array(_first(rows, "sigmas"), dtype=np.float64),
        token_mask=np.array(_first(rows, "token_mask"), dtype=np.bool_),
        images=images,
        background_drift=rows.column("background_drift").to_numpy(),
        states=_states(rows) if level == "states" else None,
        acd=_recordings(rows) if level != "scores" else None,
        worker=_first(rows, "worker"),
    )


def _states(rows: pa.Table) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = rows.column("states").combine_chunks().flatten().to_numpy()
    return flat.reshape(rows.num_rows, *_first(rows, "states_shape"))


def _recordings(rows: pa.Table) -> NDArray[np.float32] | None:
    column = rows.column("acd")
    if column.null_count:
        return None
    flat: NDArray[np.float32] = column.combine_chunks().flatten().flatten().to_numpy()
    return flat.reshape(rows.num_rows, len(column[0]), -1)


def _scores(rows: pa.Table) -> GroupScores:
    return GroupScores(
        task_id=_first(rows, "task_id"),
        judge=_first(rows, "judge"),
        task_reward=rows.column("task_reward").to_numpy(),
        acd_reward=rows.column("acd_reward").to_numpy(),
        rewards=_judged(rows, "reward."),
        subscores=_judged(rows, "judge."),
        reasons=tuple(rows.column("reason").to_pylist()),
        pruned=tuple(np.flatnonzero(rows.column(PRUNED)).tolist()) if PRUNED in rows.column_names else (),
        explored=_explored(rows),
    )


def _explored(rows: pa.Table) -> Explored | None:
    cell = _first(rows, explored.COLUMN) if explored.COLUMN in rows.column_names else None
    pool = None if cell is None else explored.from_cell(cell)
    if pool is not None and len(pool.chosen) != rows.num_rows:
        raise ValueError(f"{rows.num_rows} candidates of a group, and {len(pool.chosen)} chosen from its pool")
    return pool


def _judged(rows: pa.Table, prefix: str) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the judges that the group was given to."""
    columns = {name: rows.column(name) for name in rows.column_names if name.startswith(prefix)}
    return {name.removeprefix(prefix): column.to_numpy() for name, column in columns.items() if column.null_count == 0}


def _first(rows: pa.Table, column: str) -> Any:
    return rows.column(column)[0].as_py()
