"""A group of candidates: the seeds it is made from, what was made, and the receipt of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rc_grpo.messages.policy import PolicyVersion
from rc_grpo.record_batch import as_rows, from_rows, read_header, with_header
from rc_grpo.seeds import derive

_METADATA = b"rc_grpo.group"


@dataclass(frozen=True)
class RolloutSeeds:
    """The seeds of one group's noise: of the reference eps*, and of each perturbed candidate's delta (Eq. 8)."""

    reference: int
    deltas: tuple[int, ...] = ()

    @property
    def group_size(self) -> int:
        """Number of candidates G, the reference included."""
        return 1 + len(self.deltas)

    @classmethod
    def for_group(cls, run_seed: int, iteration: int, task_id: str, group_size: int) -> "RolloutSeeds":
        """Derive the seeds of a training group from run seed, iteration, task and candidate index."""
        return cls(
            reference=derive(run_seed, "reference", iteration, task_id),
            deltas=tuple(derive(run_seed, "delta", iteration, task_id, i) for i in range(1, group_size)),
        )

    def of(self, candidates: Sequence[int]) -> "RolloutSeeds":
        """Return the seeds of some candidates, the reference's 0 first among them."""
        return RolloutSeeds(self.reference, tuple(self.deltas[index - 1] for index in candidates[1:]))


@dataclass(frozen=True, eq=False)
class CandidateGroup:
    """G candidate edits of one task under one policy version, with their trajectories and recordings.

    Attributes:
        task_id: the task.
        seeds: replaying them under the same policy gives the same states.
        policy: the version that acted.
        sigmas: ``[T+1]`` noise levels, 1 to 0.
        token_mask: ``[N]`` bool, tokens inside the edit region.
        images: ``[G, H, W, 3]`` uint8, the decoded edits.
        background_drift: ``[G]`` float32, RMS difference to the source outside the mask, pixels in 0..1.
        states: ``[G, T+1, N, C]`` float32 trajectory, or None where the group is only looked at (evaluation, records).
        acd: ``[G, layers, T]`` float32 attention concentration densities (Eq. 18), or None when not recorded.
        worker: who rolled it out.
        seconds: named durations of the rollout's parts.
    """

    task_id: str
    seeds: RolloutSeeds
    policy: PolicyVersion
    sigmas: NDArray[np.float64]
    token_mask: NDArray[np.bool_]
    images: NDArray[np.uint8]
    background_drift: NDArray[np.float32]
    states: NDArray[np.float32] | None = None
    acd: NDArray[np.float32] | None = None
    worker: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of candidates G."""
        return len(self.images)

    @property
    def acd_reward(self) -> NDArray[np.float64]:
        """R_acd ``[G]``: the mean of the recordings over layers and steps; NaN where nothing was recorded."""
        if self.acd is None:
            return np.full(self.size, np.nan)
        return np.asarray(self.acd.mean(axis=(1, 2), dtype=np.float64))

    def to_arrow(self) -> pa.RecordBatch:
        """Return the group as one record batch, a row a candidate; buffers are shared with the arrays, not copied."""
        columns: dict[str, pa.Array] = {
            "candidate": pa.array(np.arange(self.size, dtype=np.int32)),
            "image": as_rows(self.images),
            "background_drift": pa.array(self.background_drift),
        }
        if self.states is not None:
            columns["states"] = as_rows(self.states)
        if self.acd is not None:
            columns["acd"] = as_rows(self.acd)
        header = {
            "task_id": self.task_id,
            "seeds": {"reference": self.seeds.reference, "deltas": self.seeds.deltas},
            "policy": vars(self.policy),
            "sigmas": self.sigmas.tolist(),
            "token_mask": "".join("1" if inside else "0" for inside in self.token_mask),
            "shapes": {
                name: list(array.shape[1:])
                for name, array in (("image", self.images), ("states", self.states), ("acd", self.acd))
                if array is not None
            },
            "worker": self.worker,
            "seconds": dict(self.seconds),
        }
        return with_header(columns, _METADATA, header)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> "CandidateGroup":
        """Read a batch written by `to_arrow`; the arrays are read-only views of its buffers."""
        header = read_header(batch, _METADATA)
        shapes = header["shapes"]
        images = from_rows(batch, "image", shapes)
        assert images is not None
        return cls(
            task_id=header["task_id"],
            seeds=RolloutSeeds(header["seeds"]["reference"], tuple(header["seeds"]["deltas"])),
            policy=PolicyVersion(**header["policy"]),
            sigmas=np.asarray(header["sigmas"], dtype=np.float64),
            token_mask=np.frombuffer(header["token_mask"].encode(), dtype=np.uint8) == ord("1"),
            images=images,
            background_drift=batch.column("background_drift").to_numpy(),
            states=from_rows(batch, "states", shapes),
            acd=from_rows(batch, "acd", shapes),
            worker=header["worker"],
            seconds=header["seconds"],
        )


@dataclass(frozen=True)
class RolloutReceipt:
    """What the driver keeps of a finished rollout; the tensors stay where they were made.

    Attributes:
        task_id: the task.
        policy: the version that acted.
        worker: who rolled it out.
        background_drift: as in `CandidateGroup`.
        diversity: RMS difference of the candidates' pixels to their mean image, pixels in 0..1.
        seconds: named durations of the rollout's parts.
        images: SHA-256 (hex) of each edit's pixels, of a pool that is explored.
    """

    task_id: str
    policy: PolicyVersion
    worker: str
    background_drift: tuple[float, ...]
    diversity: float
    seconds: Mapping[str, float]
    images: tuple[str, ...] = ()
