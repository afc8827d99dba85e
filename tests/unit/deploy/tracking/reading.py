"""Reads what each tracker's own library wrote on this machine, without a server."""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Protocol

import mlflow
import pytest
import yaml
from PIL import Image
from swanlab.proto.swanlab.record.v1.record_pb2 import Record
from swanlab.sdk.internal.core_python.store import DataStoreReader

from tests.unit.deploy.tracking.wandb_files import rows, starts

# Read once, when trackio is imported.
os.environ.setdefault("TRACKIO_DIR", tempfile.mkdtemp(prefix="trackio-"))
import trackio
from trackio.sqlite_storage import SQLiteStorage

Size = tuple[int, int]


class Reader(Protocol):
    """What was tracked of the run of a folder, whose project has this name."""

    def __init__(self, folder: Path, project: str, patch: pytest.MonkeyPatch) -> None: ...

    def runs(self) -> int:
        """How many runs the tracker has of it."""

    def points(self, name: str) -> list[tuple[int, float]]:
        """A metric as (update, value)."""

    def pictures(self) -> list[tuple[int, Size]]:
        """The sample grids as (update, width and height)."""

    def group_size(self) -> int:
        """What the newest configuration there has as rollout.group_size."""

    def summary(self) -> str:
        """The summary as it is there."""

    def endings(self) -> list[Any]:
        """How it ended each time, in the tracker's words; None where it has no such."""


def size(path: Path) -> Size:
    with Image.open(path) as image:
        return image.size


class WandbFiles:
    def __init__(self, folder: Path, project: str, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder / "trackers"
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("HOME", str(folder / "home"))
        patch.delenv("WANDB_API_KEY", raising=False)

    def runs(self) -> int:
        return len({record.run.run_id for record in self._records() if record.HasField("run")})

    def points(self, name: str) -> list[tuple[int, float]]:
        return [(row["update"], row[name]) for row in self._rows() if name in row]

    def pictures(self) -> list[tuple[int, Size]]:
        shown = [row for row in self._rows() if "candidates.path" in row]
        files = [next(self._folder.glob(f"wandb/offline-run-*/files/{row['candidates.path']}")) for row in shown]
        return [(row["update"], size(file)) for row, file in zip(shown, files, strict=True)]

    def group_size(self) -> int:
        run = [record.run for record in self._records() if record.HasField("run")][-1]
        (rollout,) = (item.value_json for item in run.config.update if item.key == "rollout")
        return int(json.loads(rollout)["group_size"])

    def summary(self) -> str:
        summed = [item for record in self._records() for item in record.summary.update]
        return str({item.key or ".".join(item.nested_key): item.value_json for item in summed})

    def endings(self) -> list[Any]:
        return [record.exit.exit_code for record in self._records() if record.HasField("exit")]

    def _records(self) -> list[Any]:
        return [record for start in starts(self._folder) for record in start]

    def _rows(self) -> list[dict[str, Any]]:
        return rows(self._records())


class MlflowFiles:
    def __init__(self, folder: Path, project: str, patch: pytest.MonkeyPatch) -> None:
        self._project = project
        # The slim client knows servers and folders; a database needs the whole package.
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", (folder / "mlruns").as_uri())

    def found(self) -> list[Any]:
        client = mlflow.MlflowClient()
        return list(client.search_runs([client.get_experiment_by_name(self._project).experiment_id]))

    def artifact(self, run: Any, path: str) -> str:
        return Path(mlflow.MlflowClient().download_artifacts(run.info.run_id, path)).read_text()

    def runs(self) -> int:
        return len(self.found())

    def points(self, name: str) -> list[tuple[int, float]]:
        history = mlflow.MlflowClient().get_metric_history(self.found()[0].info.run_id, name)
        return [(point.step, point.value) for point in history]

    def pictures(self) -> list[tuple[int, Size]]:
        client, run = mlflow.MlflowClient(), self.found()[0].info.run_id
        files = [entry.path for entry in client.list_artifacts(run, "images")]
        shown = [file for file in files if "candidates" in file and file.endswith(".png")]
        return [
            (int(re.search(r"step\D(\d+)", file)[1]), size(Path(client.download_artifacts(run, file))))
            for file in shown
        ]

    def group_size(self) -> int:
        return int(yaml.safe_load(self.artifact(self.found()[0], "config.yaml"))["rollout"]["group_size"])

    def summary(self) -> str:
        return self.artifact(self.found()[0], "summary.json")

    def endings(self) -> list[Any]:
        return [run.info.status for run in self.found()]


class SwanlabFiles:
    def __init__(self, folder: Path, project: str, patch: pytest.MonkeyPatch) -> None:
        self._folder = folder / "trackers/swanlab"
        patch.setenv("SWANLAB_MODE", "offline")
        patch.setenv("HOME", str(folder / "home"))
        patch.delenv("SWANLAB_API_KEY", raising=False)
        for probe in ("HARDWARE", "RUNTIME", "REQUIREMENTS", "GIT", "MONITOR"):
            patch.setenv(f"SWANLAB_PROBE_{probe}", "false")  # they take a second

    def runs(self) -> int:
        return len({record.start.id for record in self._records() if record.HasField("start")})

    def points(self, name: str) -> list[tuple[int, float]]:
        scalars = [record.scalar for record in self._records() if record.HasField("scalar")]
        return [(scalar.step, scalar.value.number) for scalar in scalars if scalar.key == name]

    def pictures(self) -> list[tuple[int, Size]]:
        media = [record.media for record in self._records() if record.HasField("media")]
        return [
            (shown.step, size(next(self._folder.glob(f"run-*/media/image/{item.filename}"))))
            for shown in media
            if shown.key == "candidates"
            for item in shown.value.items
        ]

    def group_size(self) -> int:
        newest = max(self._folder.glob("run-*/files/config.yaml"))
        return int(yaml.safe_load(newest.read_text())["rollout"]["value"]["group_size"])

    def summary(self) -> str:
        return "".join(file.read_text() for file in self._folder.glob("run-*/media/text/*"))

    def endings(self) -> list[Any]:
        return [record.finish.state for record in self._records() if record.HasField("finish")]

    def _records(self) -> list[Any]:
        found = []
        for file in sorted(self._folder.glob("run-*/*.swanlab")):
            reader = DataStoreReader()
            reader.open(file)
            found += [Record.FromString(each) for each in reader]
            reader.close()
        return found


class TrackioFiles:
    def __init__(self, folder: Path, project: str, patch: pytest.MonkeyPatch) -> None:
        self._project = project
        for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
            patch.delenv(name, raising=False)

    def runs(self) -> int:
        return len(SQLiteStorage.get_runs(self._project))

    def points(self, name: str) -> list[tuple[int, float]]:
        return [(row["step"], row[name]) for row in self._rows() if name in row]

    def pictures(self) -> list[tuple[int, Size]]:
        shown = [(row["step"], row["candidates"]) for row in self._rows() if "candidates" in row]
        return [(step, size(trackio.utils.MEDIA_DIR / picture["file_path"])) for step, picture in shown]

    def group_size(self) -> int:
        return int(SQLiteStorage.get_run_config(self._project, self._name())["rollout"]["group_size"])

    def summary(self) -> str:
        return str([row["summary"] for row in self._rows() if "summary" in row])

    def endings(self) -> list[Any]:
        return []

    def _name(self) -> str:
        return str(SQLiteStorage.get_runs(self._project)[0])

    def _rows(self) -> list[dict[str, Any]]:
        return list(SQLiteStorage.get_logs(self._project, self._name()))
