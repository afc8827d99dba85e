"""A run's folder: whose it is, what is in it, and going back in it."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field

from rc_grpo.config import RunConfig, dump
from rc_grpo.durable import write_whole
from rc_grpo.kept import Form, read_bytes, read_json

CONFIG, ENVIRONMENT, SUMMARY, ADDRESS = "config.yaml", "environment.json", "summary.json", "cluster.json"
DATA = "data.json"
_OF_AN_UPDATE = ("experience", "grids", "evaluations")
_NUMBERED = re.compile(r"update-([0-9]{5,9})")

Count = Annotated[int, Field(ge=0, lt=2**53)]
"""Of updates and the like, as a file of a run may hold it."""


class _Gain(Form):
    before: float
    after: float


class _Summary(Form):
    updates: Count
    training_minutes: float
    heldout: _Gain | None = None


class _Whereabouts(Form):
    address: str
    namespace: str
    auth: Annotated[str, Field(pattern=r"^[a-z0-9_-]+$")]


class _Start(Form):
    machine: str | None = None
    commit: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)


class _Environment(_Start):
    earlier_starts: list[_Start] = Field(default_factory=list)


class _Digests(Form):
    origin: str
    tasks: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{12}(-[0-9a-f]{12}){3,4}$")]]


class _Data(Form):
    # By branch of the configuration: which there are is the run's business, and none of them is null.
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, _Digests]


class _Evaluation(Form):
    tasks: list[str]


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
        if (summary := self.summary) is not None:
            aside = self.aside(summary["updates"])
            aside.mkdir(parents=True)
            (self.path / SUMMARY).replace(aside / SUMMARY)
        before = self.environment or {}
        earlier = [*before.pop("earlier_starts", []), *([before] if before else [])]
        write_whole(
            self.path / ENVIRONMENT, json.dumps(dict(environment) | {"earlier_starts": earlier}, indent=2) + "\n"
        )

    @property
    def environment(self) -> dict[str, Any] | None:
        """What the run's last start ran with and on, and those before; None where nothing is written."""
        return self._object(ENVIRONMENT, _Environment, "bring it back from a copy, or remove it")

    def keep_data(self, fingerprints: Mapping[str, Any]) -> None:
        """Write the fingerprints of the run's data (see `deploy.records.data`)."""
        write_whole(self.path / DATA, json.dumps(dict(fingerprints), indent=0) + "\n")

    def data(self) -> dict[str, Any] | None:
        """Read the fingerprints of the run's data; None where there are none."""
        return self._object(DATA, _Data, "bring it back from a copy, or remove it to compare no data")

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Write what came of the run, which is then finished."""
        write_whole(self.path / SUMMARY, json.dumps(dict(summary), indent=2) + "\n")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What came of the run; None while it is not finished."""
        return self._object(
            SUMMARY, _Summary, "bring it back from a copy, or remove it: the run then counts as unfinished"
        )

    def announce(self, whereabouts: Mapping[str, str]) -> None:
        """Leave word how the process that drives the run is reached (see `deploy.cluster.whereabouts`)."""
        write_whole(self.path / ADDRESS, json.dumps(dict(whereabouts)) + "\n")

    @property
    def whereabouts(self) -> dict[str, str] | None:
        """How to reach the process that drives the run, or was killed while it did; None when it ended."""
        return self._object(ADDRESS, _Whereabouts, "remove it, and name the cluster by --address")

    def keep_evaluation(self, update: int, text: str) -> None:
        """Write a held-out evaluation."""
        write_whole(self.evaluation_file(update), text)

    def evaluation_file(self, update: int) -> Path:
        """Return where the held-out evaluation after an update is, or will be."""
        return self.path / "evaluations" / f"{update_name(update)}.json"

    def evaluations(self) -> dict[int, str]:
        """Read the held-out evaluations made so far, by update."""
        way_out = "bring it back from a copy, or remove it"
        found = {}
        for update, path in self._numbered("evaluations", "json").items():
            read_json(path, _Evaluation, way_out)
            found[update] = read_bytes(path, way_out).decode()
        return found

    def experience_file(self, update: int) -> Path:
        """Return where the experience of an update is, or will be."""
        return self.path / "experience" / f"{update_name(update)}.parquet"

    def grid_file(self, update: int) -> Path:
        """Return where the sample grid of an update is, or will be."""
        return self.path / "grids" / f"{update_name(update)}.png"

    def experience(self) -> dict[int, Path]:
        """Return the files of the experience log by update, in order."""
        return self._numbered("experience", "parquet")

    def grids(self) -> dict[int, Path]:
        """Return the sample grids by update, in order."""
        return self._numbered("grids", "png")

    def aside(self, update: int) -> Path:
        """Return a new folder's path for what is set aside when a run goes back to an update."""
        number = len(list(self.path.glob("set-aside/*")))
        return self.path / "set-aside" / f"{number:03d}-after-{update_name(update)}"

    def set_aside(self, update: int, aside: Path) -> None:
        """Move what was recorded of later updates to ``aside``: it will be made again."""
        for kind in _OF_AN_UPDATE:
            for path in sorted((self.path / kind).glob("update-*.*")):
                number = _update_of(path)
                if number is not None and number > update:
                    (aside / kind).mkdir(parents=True, exist_ok=True)
                    path.replace(aside / kind / path.name)

    def require_readable(self) -> None:
        """Read all small files that going on with the run will read, before anything is started.

        Raises:
            rc_grpo.kept.DamagedFileError: one is not what the run wrote; says which.
        """
        for read in (lambda: self.environment, self.data, self.evaluations):
            read()

    def _object(self, name: str, form: type[Form], way_out: str) -> dict[str, Any] | None:
        path = self.path / name
        return read_json(path, form, way_out) if path.exists() else None

    def _numbered(self, kind: str, ending: str) -> dict[int, Path]:
        """Return the files of a kind by update, in order; what somebody put beside them under another name is not."""
        paths = sorted((self.path / kind).glob(f"update-*.{ending}"))
        return {update: path for path in paths if (update := _update_of(path)) is not None}


def _update_of(path: Path) -> int | None:
    match = _NUMBERED.fullmatch(path.stem)
    return None if match is None else int(match[1])
