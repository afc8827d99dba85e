"""The recorder actor: writes experience and sample grids, so that the driver never touches a pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import ray
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from deploy.contact_sheet import contact_sheet, group_row
from rc_grpo.data.experience import write_experience
from rc_grpo.messages import CandidateGroup, ScoredGroup

GROUPS_IN_A_GRID = 6
READ_DEADLINE_S = 600.0


class Recorder:
    """Writes into one run's folder; `RecorderActor` is it as a Ray actor.

    Args:
        folder: of the run.
        experience: what a row holds; ``none`` writes no experience.
    """

    def __init__(self, folder: Path, experience: Literal["none", "scores", "images", "states"]) -> None:
        self._folder = folder
        self._experience = experience
        self._board = SummaryWriter(str(folder / "tensorboard"))

    def __repr__(self) -> str:
        return "recorder"

    def record(
        self, update: int, batch: Sequence[ScoredGroup], advantages: NDArray[np.float64], with_grid: bool
    ) -> None:
        """Write one update's groups; and, if asked, a grid of some of them."""
        if self._experience == "none" and not with_grid:
            return
        stored = ray.get([scored.group for scored in batch], timeout=READ_DEADLINE_S)
        groups = [CandidateGroup.from_arrow(record) for record in stored]
        if self._experience != "none":
            rows = [
                (scored.task, group, scored.scores, advantages[index], update)
                for index, (scored, group) in enumerate(zip(batch, groups, strict=True))
            ]
            write_experience(self._folder / "experience" / f"update-{update:05d}.parquet", rows, self._experience)
        if with_grid:
            self._draw(update, batch, groups)

    def _draw(self, update: int, batch: Sequence[ScoredGroup], groups: Sequence[CandidateGroup]) -> None:
        pairs = list(zip(batch, groups, strict=True))[:GROUPS_IN_A_GRID]
        sheet = contact_sheet(
            [group_row(scored.task, group.images, scored.scores.task_reward.tolist()) for scored, group in pairs]
        )
        path = self._folder / "grids" / f"update-{update:05d}.png"
        path.parent.mkdir(exist_ok=True)
        sheet.save(path)
        self._board.add_image("candidates", np.asarray(sheet), update, dataformats="HWC")
        self._board.flush()


RecorderActor = ray.remote(Recorder)
