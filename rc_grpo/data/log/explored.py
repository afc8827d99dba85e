"""The pool that a group was chosen from, as one cell of the log: in the row of candidate 0."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rc_grpo.messages import Explored, PolicyVersion, RolloutSeeds

COLUMN = "explored"


def kind(judges: Sequence[str]) -> pa.DataType:
    """Return the type of a cell of a run with these judges; lists have an entry a candidate of the pool."""
    return pa.struct(
        {
            "policy_number": pa.int64(),
            "policy_digest": pa.string(),
            "policy_modules": pa.int32(),
            "policy_is_identity": pa.bool_(),
            "seed": pa.list_(pa.int64()),
            "image_sha256": pa.list_(pa.string()),
            "pruned": pa.list_(pa.int32()),
            "chosen": pa.list_(pa.int32()),
            **{f"reward.{name}": pa.list_(pa.float64()) for name in sorted(judges)},
        }
    )


def to_cell(pool: Explored) -> dict[str, Any]:
    """Return a pool as `from_cell` reads it."""
    return {
        **{f"policy_{name}": value for name, value in vars(pool.policy).items()},
        "seed": [pool.seeds.reference, *pool.seeds.deltas],
        "image_sha256": list(pool.images),
        "pruned": list(pool.pruned),
        "chosen": list(pool.chosen),
        **{f"reward.{name}": values.tolist() for name, values in pool.rewards.items()},
    }


def from_cell(cell: dict[str, Any]) -> Explored:
    """Read a cell of `to_cell`.

    Raises:
        LookupError, TypeError, ValueError: it is none.
    """
    reference, *deltas = cell["seed"]
    rewards = {name.removeprefix("reward."): cell[name] for name in cell if name.startswith("reward.")}
    pool = Explored(
        policy=PolicyVersion(
            **{name: cell[f"policy_{name}"] for name in ("number", "digest", "modules", "is_identity")}
        ),
        seeds=RolloutSeeds(reference, tuple(deltas)),
        chosen=tuple(cell["chosen"]),
        rewards={name: np.array(values, dtype=np.float64) for name, values in rewards.items() if values is not None},
        pruned=tuple(cell["pruned"]),
        images=tuple(cell["image_sha256"]),
    )
    if any(len(bytes.fromhex(digest)) != 32 for digest in pool.images):
        raise ValueError("a digest of a pool's image that is no SHA-256")
    sizes = {pool.size, len(pool.images), *map(len, pool.rewards.values())}
    if len(sizes) > 1 or not all(0 <= index < pool.size for index in pool.chosen):
        raise ValueError(f"a pool of {pool.size} candidates with {sorted(sizes)} entries, of which {pool.chosen}")
    return pool
