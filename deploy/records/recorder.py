"""The recorder actor: writes experience and sample grids, so that the driver never touches a pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from deploy.cluster import beside_the_driver
from deploy.records.contact_sheet import contact_sheet, group_row
from deploy.records.folder import RunFolder
from rc_grpo.config import OutputConfig
from rc_grpo.data.log.experience import ScoredCandidates, write_experience
from rc_grpo.data.log.policies import PolicyStore
from rc_grpo.messages import CandidateGroup, Conditions, PolicyVersion, ScoredGroup

GROUPS_IN_A_GRID = 6


class Recorder:
    """Writes into one run's folder; `RecorderActor` is it as a Ray actor.

    Args:
        folder: of the run.
        output: what is to be written, and by when groups must have been read.
    """

    def __init__(self, folder: Path, output: OutputConfig) -> None:
        self._files = RunFolder(folder)
        self._experience = output.experience
        self._deadline_s = output.record_deadline_s
        self._policies = PolicyStore(folder / "policies")
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __repr__(self) -> str:
        return "recorder"

    def record(
        self, update: int, batch: Sequence[ScoredGroup], advantages: NDArray[np.float64], with_grid: bool
    ) -> None:
        """Write one update's groups; and, if asked, a grid of some of them."""
        if self._experience == "none" and not with_grid:
            return
        stored = ray.get([scored.group for scored in batch], timeout=self._deadline_s)
        groups = [CandidateGroup.from_arrow(record) for record in stored]
        if self._experience != "none":
            conditions: list[Conditions | None] = [None] * len(batch)
            if self._experience == "states":
                conditions = ray.get([scored.conditions for scored in batch], timeout=self._deadline_s)
            rows = [
                ScoredCandidates(scored.task, group, scored.scores, advantages[index], update, conditions[index])
                for index, (scored, group) in enumerate(zip(batch, groups, strict=True))
            ]
            write_experience(self._files.experience_file(update), rows, self._experience)
        if with_grid:
            self._draw(update, batch, groups)

    def keep(self, version: PolicyVersion, weights: NDArray[np.uint8]) -> None:
        """Write a version's LoRA weights, so that its rollouts can be replayed."""
        self._policies.keep(version, weights)

    def _draw(self, update: int, batch: Sequence[ScoredGroup], groups: Sequence[CandidateGroup]) -> None:
        pairs = list(zip(batch, groups, strict=True))[:GROUPS_IN_A_GRID]
        sheet = contact_sheet([group_row(scored.task, group.images, scored.scores) for scored, group in pairs])
        path = self._files.grid_file(update)
        path.parent.mkdir(exist_ok=True)
        sheet.save(path)
        self._board.add_image("candidates", np.asarray(sheet), update, dataformats="HWC")
        self._board.flush()


RecorderActor = ray.remote(Recorder)


def start_recorder(folder: Path, output: OutputConfig, namespace: str) -> Any:
    """Start a run's recorder on the driver's node."""
    options = beside_the_driver()
    return RecorderActor.options(name="recorder", namespace=namespace, **options).remote(folder, output)
