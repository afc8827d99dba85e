"""A run in trackio."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from deploy.tracking.tracker import DEFAULT_PROJECT, PICTURES, Ending, summary_figures
from rc_grpo.config import RunConfig


class TrackioRun:
    """`Tracker` of trackio: a database under ``TRACKIO_DIR``, or a Space or server that the environment names.

    Its library says on the driver's screen what it could not take, and does not raise.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._config = config

    @classmethod
    def check(cls) -> None:
        """Leave it to `open`: without a server it needs nothing."""

    def open(self, run_id: str | None) -> str:
        """Begin a run, or go on with the one of this id, which is its name: trackio resumes by name alone.

        So that nothing else has it, the run's name gets an end of its own.
        """
        name = run_id or f"{self._config.name}-{uuid.uuid4().hex[:6]}"
        self._run = trackio.init(
            project=self._config.output.project or DEFAULT_PROJECT,
            name=name,
            resume="allow",
            config=self._config.model_dump(mode="json"),
            embed=False,
            # The driver's own machine: what the cluster's do is in the metrics.
            auto_log_cpu=False,
            auto_log_gpu=False,
        )
        return name

    def metrics(self, update: int, values: Mapping[str, float]) -> None:
        """Log metrics, the update being the step."""
        self._run.log(dict(values), step=update)

    def grid(self, update: int, path: Path) -> None:
        """Log an image, the update being the step."""
        self._run.log({PICTURES: trackio.Image(path)}, step=update)

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        """Log its numbers as metrics under ``summary/``, and all of it as a text."""
        whole = json.dumps(dict(values), indent=2)
        self._run.log({**summary_figures(values), "summary": trackio.Markdown(f"```json\n{whole}\n```")}, step=update)

    def close(self, ending: Ending) -> None:
        """Write what is on its way; how a run ended is nothing that trackio knows."""
        self._run.finish()
