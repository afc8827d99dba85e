"""Runs to which something happens, and what must be true of them afterwards."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ray
from rich.console import Console

from deploy.cluster import namespace
from deploy.loop import train
from deploy.records.resuming import resumed_config
from deploy.run import Run
from deploy.watching.progress import Progress
from tests.integration.conftest import FOUR, Finished, read_run, short_config

Deed = Callable[[Run], object]


class Disturbed(Run):
    """A run to which something happens after some of its updates, each once."""

    deeds: dict[int, Deed]

    async def record(self, *arguments: object) -> None:  # type: ignore[override]
        await super().record(*arguments)  # type: ignore[arg-type]
        deed = self.deeds.pop(self.done, None)
        if deed is not None:
            deed(self)


def disturbed(
    root: Path, name: str, deeds: Mapping[int, Deed], *overrides: str, shape: Sequence[str] = FOUR
) -> Finished:
    drive(Disturbed(short_config(root, name, *shape, *overrides), quiet()), deeds)
    return read_run(root / name)


def drive(run: Run, deeds: Mapping[int, Deed] | None = None) -> None:
    run.deeds = dict(deeds or {})  # type: ignore[attr-defined]
    asyncio.run(asyncio.wait_for(train(run), 240))
    assert not run.deeds  # type: ignore[attr-defined]


def go_on(folder: Path) -> Finished:
    drive(Disturbed(resumed_config(folder), quiet(), resume=True))
    return read_run(folder)


def quiet() -> Progress:
    return Progress(Console(quiet=True))


def kill(actor: str) -> Deed:
    def deed(run: Run) -> None:
        handle = ray.get_actor(actor, namespace(run.config.name))
        os.kill(ray.get(handle.describe.remote(), timeout=10)["pid"], signal.SIGKILL)

    return deed


def stop(run: Run) -> None:
    run.stop.asked.set()


def same_run(one: Finished, other: Finished) -> None:
    assert one.digest == other.digest
    assert one.summary["exported_digest"] == other.summary["exported_digest"]
    assert [update["update"] for update in one.updates] == [update["update"] for update in other.updates]
    for mine, theirs in zip(one.updates, other.updates, strict=True):
        assert mine["version"] == theirs["version"]
        assert mine["reward/task_mean"] == theirs["reward/task_mean"]
