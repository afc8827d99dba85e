"""Everything that crosses a process: the task, the weights, the group of candidates, its scores.

Messages are frozen and hold numpy arrays or bytes, never tensors. The two that carry a group's data travel as one Arrow
record batch with a row a candidate (zero-copy on the reading side of Ray's object store); on disk the same columns are
parquet. What belongs to the whole group sits in the schema's metadata.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rc_grpo.record_batch import as_rows, from_rows, read_header, with_header
from rc_grpo.seeds import derive
from rc_grpo.storable import storable

EditKind = Literal["add", "remove", "replace", "other"]
_GROUP_METADATA = b"rc_grpo.group"
_SCORES_METADATA = b"rc_grpo.scores"

REASON_CHARACTERS = 10_000
"""Of what was said about one candidate that a message keeps."""


@dataclass(frozen=True)
class EditTask:
    """One thing to edit, and where.

    Images are encoded bytes (PNG or any format Pillow reads); they are decoded where they are used.

    Attributes:
        task_id: unique within a data set; part of every seed of the task's rollouts.
        kind: which of CompBench's three families the task belongs to, or ``other``.
        source: the image to edit.
        instruction: what to do, in words.
        mask: single-channel image of the source's size; set (see `rc_grpo.editor.geometry`) where the edit may happen.
        target: the true result, when the data set knows it.
        caption: what the edited region shows; CompBench's LC-T compares against it. Several are separated by ``|``.
    """

    task_id: str
    kind: EditKind
    source: bytes
    instruction: str
    mask: bytes
    target: bytes | None = None
    caption: str | None = None


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


@dataclass(frozen=True)
class PolicyVersion:
    """The name of one set of LoRA weights, and what a worker must find when it has applied them.

    Attributes:
        number: count of the run's updates behind these weights; 0 is what it begins with.
        digest: SHA-256 (hex) over the LoRA tensors in canonical order, see `rc_grpo.editor.lora.digest`.
        modules: number of modules the weights must bind to.
        is_identity: every LoRA product is zero, so that the outputs must equal the base model's: an untrained LoRA.
    """

    number: int
    digest: str
    modules: int
    is_identity: bool

    def __str__(self) -> str:
        return f"v{self.number}:{self.digest[:8]}"


@dataclass(frozen=True)
class VersionProof:
    """What a worker reports after applying a version (rule 1 of the design): counted, digested, and seen to act.

    Attributes:
        worker: who reports.
        version: the number that was applied.
        modules: LoRA modules whose weights were replaced.
        digest: digest recomputed from the weights now in the model.
        canary_shift: largest absolute change of the canary's velocity between LoRA off and on.
    """

    worker: str
    version: int
    modules: int
    digest: str
    canary_shift: float


class VersionMismatchError(RuntimeError):
    """Weights were sent and did not arrive as sent; the worker must not be given work."""


@dataclass(frozen=True)
class Conditions:
    """What an editor computes once for a task from source and instruction, and every velocity call reuses.

    Attributes:
        height: height of the edited image in pixels, after the editor's resize.
        width: width in pixels.
        arrays: the editor's own arrays by name, of any dtype, without a batch axis.
        text_valid: ``[L]`` bool, True at the instruction's own tokens: not at padding, nor at a chat template's, nor at
            those that stand for an image.
        sources: ``(height, width)`` of each source image in pixels, where it is not the edited image's.
    """

    height: int
    width: int
    arrays: Mapping[str, NDArray[Any]]
    text_valid: NDArray[np.bool_]
    sources: tuple[tuple[int, int], ...] = ()


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
        return with_header(columns, _GROUP_METADATA, header)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> "CandidateGroup":
        """Read a batch written by `to_arrow`; the arrays are read-only views of its buffers."""
        header = read_header(batch, _GROUP_METADATA)
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

    def __post_init__(self) -> None:
        kept = (None if reason is None else storable(reason, REASON_CHARACTERS) for reason in self.reasons)
        object.__setattr__(self, "reasons", tuple(kept))
        if not self.rewards:
            object.__setattr__(self, "rewards", {self.judge: self.task_reward})

    @property
    def failed(self) -> int:
        """Number of candidates without a score."""
        return int(np.isnan(self.task_reward).sum())

    @property
    def failures(self) -> tuple[str, ...]:
        """Why scoring failed, for each candidate that it failed for and of which somebody said so."""
        found = zip(np.isnan(self.task_reward), self.reasons, strict=False)
        return tuple(reason for failed, reason in found if failed and reason is not None)

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
        return with_header(columns, _SCORES_METADATA, header)

    @classmethod
    def from_arrow(cls, batch: pa.RecordBatch) -> "GroupScores":
        """Read a batch written by `to_arrow`."""
        header = read_header(batch, _SCORES_METADATA)

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
    """

    task_id: str
    policy: PolicyVersion
    worker: str
    background_drift: tuple[float, ...]
    diversity: float
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class ScoredGroup:
    """A group that is ready to be learned from, as the driver holds it.

    Attributes:
        task: what was to be edited.
        receipt: of the rollout.
        scores: what the judge made of it.
        group: reference to the `CandidateGroup`'s record batch, opaque to the ground floor.
        conditions: reference to the task's `Conditions`.
    """

    task: EditTask
    receipt: RolloutReceipt
    scores: GroupScores
    group: Any
    conditions: Any
