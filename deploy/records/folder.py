"""A run's folder: whose it is, what is in it, and going back in it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rc_grpo.config import RunConfig, dump
from rc_grpo.durable import write_whole

CONFIG, ENVIRONMENT, SUMMARY, ADDRESS = "config.yaml", "environment.json", "summary.json", "cluster.json"
DATA = "data.json"
_OF_AN_UPDATE = ("experience", "grids", "evaluations")


class RunExistsError(FileExistsError):
    """A run of that name has left a folder already; nothing of it is overwritten."""


class RunBusyError(RuntimeError):
    """Another process drives the run."""


def update_name(update: int) -> str:
    """Return the name under which whatever is of an update is kept, such as ``update-00007``."""
    return f"update-{update:05d}"


def updates_of(name: str) -> int:
    """Return the number in a name of `update_name`."""
    return int(name.removeprefix("update-"))


class RunFolder:
    """Files of one run.

    Args:
        path: of the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @classmethod
    def of(cls, config: RunConfig) -> "RunFolder":
        """Return the folder of the run that a configuration names."""
        return cls(config.output.root / config.name)

    @property
    def finished(self) -> bool:
        """The run has come to its end."""
        return (self.path / SUMMARY).exists()

    def check_free(self) -> None:
        """Refuse a folder that is there.

        Raises:
            RunExistsError: with the ways out.
        """
        if self.path.exists():
            ways = "choose another name (--set name=...) or remove it"
            if (self.path / CONFIG).exists() and not self.finished:
                ways = f"go on with it (rc-grpo train --resume {self.path}), {ways}"
            raise RunExistsError(f"{self.path} exists; {ways}")

    @contextmanager
    def driven(self) -> Iterator[None]:
        """Claim the run for this process.

        Raises:
            RunBusyError: another one has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.path / ".lock", timeout=0):
                try:
                    yield
                finally:
                    (self.path / ADDRESS).unlink(missing_ok=True)
        except Timeout as error:
            raise RunBusyError(
                f"another process drives {self.path}; ask it with `rc-grpo status --run {self.path}`, or end it first"
            ) from error

    def describe(self, config: RunConfig, environment: Mapping[str, Any]) -> None:
        """Write the configuration, and what it runs with; of a resumed run's surroundings, one record a start.

        A finished run that goes on is finished no more: its summary is set aside, for one of the whole to be written.
        """
        write_whole(self.path / CONFIG, dump(config))
        if self.finished:
            aside = self.aside(json.loads((self.path / SUMMARY).read_text())["updates"])
            aside.mkdir(parents=True)
            (self.path / SUMMARY).replace(aside / SUMMARY)
        path = self.path / ENVIRONMENT
        before = json.loads(path.read_text()) if path.exists() else {}
        earlier = [*before.pop("earlier_starts", []), *([before] if before else [])]
        write_whole(path, json.dumps(dict(environment) | {"earlier_starts": earlier}, indent=2) + "\n")

    def keep_data(self, fingerprints: Mapping[str, Any]) -> None:
        """Write the fingerprints of the run's data (see `deploy.records.data`)."""
        write_whole(self.path / DATA, json.dumps(dict(fingerprints), indent=0) + "\n")

    def data(self) -> dict[str, Any] | None:
        """Read the fingerprints of the run's data; None where there are none."""
        path = self.path / DATA
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
        return found

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Write what came of the run, which is then finished."""
        write_whole(self.path / SUMMARY, json.dumps(dict(summary), indent=2) + "\n")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What came of the run; None while it is not finished."""
        path = self.path / SUMMARY
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def announce(self, whereabouts: Mapping[str, str]) -> None:
        """Leave word how the process that drives the run is reached (see `deploy.cluster.whereabouts`)."""
        write_whole(self.path / ADDRESS, json.dumps(dict(whereabouts)) + "\n")

    @property
    def whereabouts(self) -> dict[str, str] | None:
        """How to reach the process that drives the run, or was killed while it did; None when it ended."""
        path = self.path / ADDRESS
        found: dict[str, str] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def keep_evaluation(self, update: int, text: str) -> None:
        """Write a held-out evaluation."""
        write_whole(self.path / "evaluations" / f"{update_name(update)}.json", text)

    def evaluations(self) -> dict[int, str]:
        """Read the held-out evaluations made so far, by update."""
        paths = sorted((self.path / "evaluations").glob("update-*.json"))
        return {updates_of(path.stem): path.read_text() for path in paths}

    def experience_file(self, update: int) -> Path:
        """Return where the experience of an update is, or will be."""
        return self.path / "experience" / f"{update_name(update)}.parquet"

    def grid_file(self, update: int) -> Path:
        """Return where the sample grid of an update is, or will be."""
        return self.path / "grids" / f"{update_name(update)}.png"

    def experience(self) -> dict[int, Path]:
        """Return the files of the experience log by update, in order."""
        return {updates_of(path.stem): path for path in sorted((self.path / "experience").glob("update-*.parquet"))}

    def grids(self) -> dict[int, Path]:
        """Return the sample grids by update, in order."""
        return {updates_of(path.stem): path for path in sorted((self.path / "grids").glob("update-*.png"))}

    def aside(self, update: int) -> Path:
        """Return a new folder's path for what is set aside when a run goes back to an update."""
        number = len(list(self.path.glob("set-aside/*")))
        return self.path / "set-aside" / f"{number:03d}-after-{update_name(update)}"

    def set_aside(self, update: int, aside: Path) -> None:
        """Move what was recorded of later updates to ``aside``: it will be made again."""
        for kind in _OF_AN_UPDATE:
            for path in sorted((self.path / kind).glob("update-*.*")):
                if updates_of(path.stem) > update:
                    (aside / kind).mkdir(parents=True, exist_ok=True)
                    path.replace(aside / kind / path.name)
