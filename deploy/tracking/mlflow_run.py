"""A run in MLflow."""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from PIL import Image

from deploy.tracking.tracker import DEFAULT_PROJECT, PICTURES, Ending, summary_figures
from rc_grpo.config import RunConfig, dump
from rc_grpo.config.differences import flat

PARAM_LENGTH = 500
"""Characters of a parameter that every server takes; what is longer is cut, and whole in the artifact config.yaml."""
_PARAMS_AT_ONCE = 100
_METRICS_AT_ONCE = 1000
_NOT_IN_A_NAME = re.compile(r"[^\w.\-/ ]")
_STATUS: Mapping[Ending, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MlflowRun:
    """`Tracker` of MLflow; the configuration becomes parameters, and an artifact."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self._config = config

    @classmethod
    def check(cls) -> None:
        """Leave it to `open`: a server without credentials is a usual one."""

    def open(self, run_id: str | None) -> str:
        """Begin a run, or go on with the one of this id."""
        self._client = MlflowClient()
        if run_id is None:
            name = self._config.output.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_PROJECT
            found = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if found is None else found.experiment_id
            self._id = str(self._client.create_run(experiment, run_name=self._config.name).info.run_id)
            self._parameters()
        else:
            self._id = run_id
            self._client.update_run(run_id, status="RUNNING")
        self._client.log_text(self._id, dump(self._config), "config.yaml")
        return self._id

    def metrics(self, update: int, values: Mapping[str, float]) -> None:
        """Log metrics, the update being the step."""
        now = int(time.time() * 1000)
        points = [Metric(_NOT_IN_A_NAME.sub("_", name), value, now, update) for name, value in values.items()]
        for start in range(0, len(points), _METRICS_AT_ONCE):
            self._client.log_batch(self._id, metrics=points[start : start + _METRICS_AT_ONCE])

    def grid(self, update: int, path: Path) -> None:
        """Log an image, the update being the step."""
        with Image.open(path) as image:
            self._client.log_image(self._id, image, key=PICTURES, step=update, synchronous=True)

    def summary(self, update: int, values: Mapping[str, Any]) -> None:
        """Write the artifact summary.json, and the numbers in it as metrics under ``summary/``."""
        self._client.log_dict(self._id, dict(values), "summary.json")
        self.metrics(update, summary_figures(values))

    def close(self, ending: Ending) -> None:
        """Set the run's status."""
        self._client.set_terminated(self._id, _STATUS[ending])

    def _parameters(self) -> None:
        """Log the configuration; once, since MLflow never lets a parameter change."""
        leaves = flat(self._config.model_dump(mode="json"))
        params = [Param(_NOT_IN_A_NAME.sub("_", key), _short(str(value))) for key, value in leaves.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[start : start + _PARAMS_AT_ONCE])


def _short(value: str) -> str:
    return value if len(value) <= PARAM_LENGTH else value[: PARAM_LENGTH - 3] + "..."
