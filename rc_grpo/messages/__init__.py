"""Everything that crosses a process: the task, the weights, the group of candidates, its scores.

Messages are frozen and hold numpy arrays or bytes, never tensors. The two that carry a group's data travel as one Arrow
record batch with a row a candidate (zero-copy on the reading side of Ray's object store); on disk the same columns are
parquet. What belongs to the whole group sits in the schema's metadata.
"""

from dataclasses import dataclass
from typing import Any

from rc_grpo.messages.groups import CandidateGroup, RolloutReceipt, RolloutSeeds
from rc_grpo.messages.policy import PolicyVersion, VersionMismatchError, VersionProof
from rc_grpo.messages.scores import REASON_CHARACTERS, Explored, GroupScores
from rc_grpo.messages.tasks import Conditions, EditKind, EditTask

__all__ = [
    "REASON_CHARACTERS",
    "CandidateGroup",
    "Conditions",
    "EditKind",
    "EditTask",
    "Explored",
    "GroupScores",
    "PolicyVersion",
    "RolloutReceipt",
    "RolloutSeeds",
    "ScoredGroup",
    "VersionMismatchError",
    "VersionProof",
]


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
