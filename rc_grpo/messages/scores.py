"""What judges made of a group, and of the pool that it was chosen from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rc_grpo.messages.groups import RolloutSeeds
from rc_grpo.messages.policy import PolicyVersion
from rc_grpo.record_batch import read_header, with_header
from rc_grpo.storable import storable

_METADATA = b"rc_grpo.scores"

REASON_CHARACTERS = 10_000
"""Of what was said about one candidate that a message keeps."""


@dataclass(frozen=True, eq=False)
class Explored:
    """A pool of M candidates that were made cheaply and judged, and those of them that a group was made of.

    Attributes:
        policy: the version that acted.
        seeds: of the pool.
        chosen: ``[G]``, where in the pool each candidate of the group stands; the reference's 0 first.
        rewards: each judge's by its name, ``[M]`` float64; NaN where it failed or was not asked.
        pruned: candidates that no judge was asked about, as they look like the reference.
        images: SHA-256 (hex) of each edit's pixels.
    """

    policy: PolicyVersion
    seeds: RolloutSeeds
    chosen: tuple[int, ...]
    rewards: Mapping[str, NDArray[np.float64]]
    pruned: tuple[int, ...] = ()
    images: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Number of candidates M."""
        return self.seeds.group_size


@dataclass(frozen=True, eq=False)
class GroupScores:
    """What one judge made of a group, or several.

    Attributes:
        task_id: the task.
        judge: name of the judge in the configuration; of several, joined by ``+``.
        task_reward: ``[G]`` float64, in 0..1 but for judges with a scale of their own; NaN where scoring failed. A
            failure is never a number.
        acd_reward: ``[G]`` float64, R_acd of the group's own recordings; NaN where not recorded.
        subscores: the parts as ``JUDGE.PART``, each ``[G]`` float64.
        reasons: for each candidate why scoring failed, or what the judge said, or None; made `storable`, with at most
            `REASON_CHARACTERS` each.
        attempts: how often a candidate was asked about, at most.
        latency: seconds from receipt to verdict.
        rewards: each judge's reward by its name, ``[G]`` float64, NaN where that judge failed; given none, its own.
        pruned: candidates that no judge was asked about, as they look like the reference: without a reward, and no
            failures.
        explored: the pool that the group was chosen from, if it was. It stays with the driver: `to_arrow` leaves it.
    """

    task_id: str
    judge: str
    task_reward: NDArray[np.float64]
    acd_reward: NDArray[np.float64]
    subscores: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    reasons: tuple[str | None, ...] = ()
    attempts: int = 1
    latency: float = 0.0
    rewards: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    pruned: tuple[int, ...] = ()
    explored: Explored | None = None

    def __post_init__(self) -> None:
        kept = (None if reason is None else storable(reason, REASON_CHARACTERS) for reason in self.reasons)
        object.__setattr__(self, "reasons", tuple(kept))
        if not self.rewards:
            object.__setattr__(self, "rewards", {self.judge: self.task_reward})

    @property
    def failed(self) -> int:
        """Number of candidates whose score failed."""
        return int(np.isnan(self.task_reward).sum()) - len(self.pruned)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why scoring failed, for each candidate that it failed for and of which somebody said so."""
        found = enumerate(zip(np.isnan(self.task_reward), self.reasons, strict=False))
        return tuple(
            reason for index, (failed, reason) in found if failed and reason is not None and index not in self.pruned
        )

    def in_words(self, index: int) -> str:
        """Return what came of judging a candidate: its reward, ``failed``, or ``not judged`` where it was pruned."""
        if index in self.pruned:
            return "not judged"
        reward = float(self.task_reward[index])
        return "failed" if np.isnan(reward) else f"{reward:.3f}"

    @property
    def columns(self) -> dict[str, NDArray[np.float64]]:
        """What each judge said as columns of a table: ``reward.JUDGE`` and ``judge.JUDGE.PART``."""
        rewards = {f"reward.{name}": values for name, values in self.rewards.items()}
        return rewards | {f"judge.{name}": values for name, values in self.subscores.items()}

    def to_arrow(self) -> pa.RecordBatch:
        """Return the scores as one record batch, a row a candidate."""
        reasons = self.reasons or (None,) * len(self.task_reward)
        columns: dict[str, pa.Array] = {
            "task_reward": pa.array(self.task_reward),
            "acd_reward": pa.array(self.acd_reward),
            "reason": pa.array(list(reasons), type=pa.string()),
        }
        columns |= {name: pa.array(values) for name, values in self.columns.items()}
        header = {"task_id": self.task_id, "judge": self.judge, "attempts": self.attempts, "latency": self.latency}
        header |= {"pruned": self.pruned}
        return with_header(columns, _METADATA, header)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> "GroupScores":
        """Read a batch written by `to_arrow`."""
        header = read_header(batch, _METADATA)

        def named(prefix: str) -> dict[str, NDArray[np.float64]]:
            names = [name for name in batch.schema.names if name.startswith(prefix)]
            return {name.removeprefix(prefix): batch.column(name).to_numpy() for name in names}

        return cls(
            task_id=header["task_id"],
            judge=header["judge"],
            task_reward=batch.column("task_reward").to_numpy(),
            acd_reward=batch.column("acd_reward").to_numpy(),
            rewards=named("reward."),
            subscores=named("judge."),
            reasons=tuple(batch.column("reason").to_pylist()),
            attempts=header["attempts"],
            latency=header["latency"],
            pruned=tuple(header["pruned"]),
        )
