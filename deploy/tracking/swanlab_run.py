"""A run in SwanLab."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import swanlab

from deploy.tracking.tracker import DEFAULT_PROJECT, PICTURES, Ending, TrackerError, summary_figures
from rc_grpo.config import RunConfig

_STATES: Mapping[Ending, str] = {"finished": "success", "failed": "crashed", "stopped": "aborted"}


class SwanlabRun:
    """`Tracker` of SwanLab.

    Its library says on the driver's screen what it could not take, and does not raise.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._config = config
        self._folder = folder

    @classmethod
    def check(cls) -> None:
        """Look for the key, since its library would ask for one in the middle of a start."""
        settings = swanlab.Settings()
        if settings.mode == "online" and settings.api_key is None:
            raise TrackerError(
                "output.trackers names swanlab, which has no key: set SWANLAB_API_KEY, or call `swanlab login`; or set "
                "SWANLAB_MODE=offline and call `swanlab sync` later"
            )

    def open(self, run_id: str | None) -> str:
        """Begin a run, or go on with the one of this id."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # The console is not caught: the progress bars own it.
        settings = swanlab.Settings(interactive=False, terminal=swanlab.Settings.Terminal(proxy_type="none"))
        self._run = swanlab.init(
            project=self._config.output.project or settings.project.name or DEFAULT_PROJECT,
            name=self._config.name,
            id=run_id,
            resume="allow",
            log_dir=str(self._folder / "swanlab"),
            config=self._config.model_dump(mode="json"),
            settings=settings,
        )
        return str(self._run.id)

    def metrics(self, update: int, values: Mapping[str, float]) -> None:
        """Log metrics, the update being the step."""
        self._run.log(values, step=update)

    def grid(self, update: int, path: Path) -> None:
        """Log an image, the update being the step."""
        self._run.log({PICTURES: swanlab.Image(str(path))}, step=update)

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        """Log its numbers as metrics under ``summary/``, and all of it as a text."""
        whole = json.dumps(dict(values), indent=2)
        self._run.log({**summary_figures(values), "summary": swanlab.Text(whole)}, step=update)

    def close(self, ending: Ending) -> None:
        """Finish in the state of the ending."""
        self._run.finish(state=_STATES[ending], error="see the run's log" if ending == "failed" else None)
