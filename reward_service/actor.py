"""The reward actor: one judge in a process of its own."""

import os
from typing import Any

import pyarrow as pa
import ray
import torch

from rc_grpo.config import RewardConfig
from rc_grpo.messages import CandidateGroup, EditTask, GroupScores
from reward_service.scoring import make_judge, score_group


class RewardWorker:
    """One judge; `RewardActor` is it as a Ray actor."""

    def __init__(self, name: str, config: RewardConfig) -> None:
        torch.set_num_threads(config.threads)
        self.name = name
        self._judge = make_judge(config)

    def __repr__(self) -> str:
        return f"{self.name}({self._judge.name})"

    def describe(self) -> dict[str, Any]:
        """Return where this worker is and who judges."""
        return {"name": self.name, "pid": os.getpid(), "judge": self._judge.name}

    def score(self, task: EditTask, group: pa.RecordBatch) -> GroupScores:
        """Score one group."""
        return score_group(self._judge, task, CandidateGroup.from_arrow(group))


RewardActor = ray.remote(RewardWorker)
