"""A real local Ray cluster, shared by the session's runs, and short trainings of the real pocket editor on it."""

import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants
from rich.console import Console

from deploy.configs import load_config
from deploy.loop import train
from deploy.run import Run
from deploy.watching.progress import Progress
from rc_grpo.config import RunConfig
from tests.integration import warm_workers

SHORT = (
    "loop.updates=2",
    "loop.groups_per_update=2",
    "rollout.group_size=4",
    "rollout.steps=3",
    "objective.anchors=2",
    "rollout.workers=1",
    "learner.ranks=1",
    "data.train.limit=12",
    "data.heldout.limit=4",
    "evaluation.tasks=0",
    "output.experience=none",
)


FOUR = ("loop.updates=4", "output.checkpoint_every=2", "learner.schedule=cosine", "learner.ema_decay=0.9")
"""Enough of a run to be interrupted in, with everything in it that a checkpoint must hold."""


@contextmanager
def ready_python() -> Iterator[str]:
    """What Ray is to run instead of Python inside the block: forks of a process that has torch and diffusers."""
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, warm_workers.warm_workers(Path(folder)) as python:
        yield python


@contextmanager
def running_cluster(python: str) -> Iterator[None]:
    """A Ray of its own inside the block, whose workers are that ``python``."""
    with pytest.MonkeyPatch.context() as quick:
        # Ray's own imports Ray for each worker before it starts what it was asked to.
        quick.setattr(ray_constants, "SETUP_WORKER_FILENAME", warm_workers.__file__)
        ray.init(
            address="local",
            num_cpus=8,
            include_dashboard=False,
            runtime_env={"py_executable": python, "env_vars": {"TRANSFORMERS_VERBOSITY": "error"}},
        )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def python() -> Iterator[str]:
    with ready_python() as python:
        yield python


@pytest.fixture(scope="session")
def cluster(python: str) -> Iterator[None]:
    with running_cluster(python):
        yield


@dataclass(frozen=True)
class Finished:
    """What a run left."""

    folder: Path
    summary: dict[str, Any]
    updates: list[dict[str, Any]]

    @property
    def digest(self) -> str:
        return str(self.summary["final_version"]["digest"])


def short_config(root: Path, name: str, *overrides: str, config: str = "pocket") -> RunConfig:
    return load_config(config, (*SHORT, f"name={name}", f"output.root={root}", *overrides))


def train_short(root: Path, name: str, *overrides: str, config: str = "pocket", seconds: float = 240) -> Finished:
    """Train on the cluster that is up, and read back what the run wrote."""
    chosen = short_config(root, name, *overrides, config=config)
    with Progress(Console(quiet=True)) as progress:
        asyncio.run(asyncio.wait_for(train(Run(chosen, progress)), seconds))
    return read_run(root / name)


def read_run(folder: Path) -> Finished:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    return Finished(folder, summary, [line for line in lines if line["event"] == "update"])


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Finished:
    """The run that disturbed ones are compared with."""
    return train_short(tmp_path_factory.mktemp("runs"), "undisturbed", *FOUR, "output.experience=scores")
