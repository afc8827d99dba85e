"""A run in Weights & Biases."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from deploy.tracking.tracker import DEFAULT_PROJECT, PICTURES, Ending, TrackerError, summary_leaves
from rc_grpo.config import RunConfig

FINISH_S = 50.0
"""What is not sent by then stays in the folder, for ``wandb sync``; without it, a dead network holds the exit up."""
# As W&B's own hook: 255, shown as `killed`, is what it says of a run that was interrupted.
_EXIT_CODES: Mapping[Ending, int] = {"finished": 0, "failed": 1, "stopped": 255}


class WandbRun:
    """`Tracker` of W&B."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder

    @classmethod
    def check(cls) -> None:
        """Ask for the key now, and not in the middle of a start. The server is not asked whether it is right."""
        if os.environ.get("WANDB_MODE", "online") != "online":
            return
        try:
            wandb.login(verify=False)
        except wandb.errors.Error as error:
            raise TrackerError(
                f"output.trackers names wandb, which has no key ({error}): set WANDB_API_KEY, or WANDB_MODE=offline "
                "and `wandb sync` later"
            ) from error

    def open(self, run_id: str | None) -> str:
        """Begin a run, or go on with the one of this id."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self._config.output.project or os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            name=self._config.name,
            id=run_id,
            resume="allow",
            dir=self._folder,
            config=self._config.model_dump(mode="json"),
            allow_val_change=True,  # of pool sizes, deadlines: what a resumed run may have another of
            # The console is not caught: the progress bars own it.
            settings=wandb.Settings(console="off", finish_timeout=FINISH_S),
        )
        # An own x axis: W&B's step may only grow, but the grid of an update comes after the next one's metrics.
        self._run.define_metric("update")
        self._run.define_metric("*", step_metric="update")
        return str(self._run.id)

    def metrics(self, update: int, values: Mapping[str, float]) -> None:
        """Log a row."""
        self._run.log({"update": update, **values})

    def grid(self, update: int, path: Path) -> None:
        """Log an image."""
        self._run.log({"update": update, PICTURES: wandb.Image(str(path))})

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        """Write to the run's summary, under ``summary/``."""
        self._run.summary.update({"update": update, **summary_leaves(values)})

    def close(self, ending: Ending) -> None:
        """Finish with the exit code of the ending, after at most `FINISH_S`."""
        self._run.finish(exit_code=_EXIT_CODES[ending])
