"""Entry point of a training job: ``rc-grpo train CONFIG``, or ``python -m deploy.train --config CONFIG`` under Ray."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import ray
import typer

from deploy.checking.check import require_ready
from deploy.cluster import connect
from deploy.configs import load_config
from deploy.errors import plain_errors
from deploy.loop import train
from deploy.records.folder import RunFolder
from deploy.records.resuming import check_plan, is_over, is_the_same_run, resumed_config
from deploy.run import Run
from deploy.stopping import RunStoppedError
from deploy.watching.invitation import how_to_watch
from deploy.watching.progress import Progress
from rc_grpo.config import RunConfig
from rc_grpo.process import keep_memory_flat


def run_training(config: RunConfig, *, resume: bool = False) -> None:
    """Check everything that can be checked cheaply, connect to Ray, train.

    Args:
        config: resolved and validated.
        resume: go on with the run that the configuration names, from its last whole checkpoint.

    Raises:
        RunStoppedError: a signal asked for it.
    """
    keep_memory_flat()
    require_ready(config, begun=resume)
    with Progress() as progress:
        run = Run(config, progress, resume=resume)
        progress.say(run.plan())
        submitted = config.cluster.address is not None or "RAY_ADDRESS" in os.environ
        progress.say(f"watch    {how_to_watch(run.folder, from_elsewhere=submitted)}")
        connect(config)
        try:
            asyncio.run(train(run))
        except asyncio.CancelledError as error:
            raise RunStoppedError(
                f"stopped at once: not in good order within loop.stop_deadline_s = {config.loop.stop_deadline_s:g} s, "
                f"or asked twice. The last checkpoint holds; go on with: rc-grpo train --resume {run.folder}"
            ) from error
        finally:
            ray.shutdown()


def start(
    config: str | None,
    resume: Path | None,
    overrides: tuple[str, ...],
    *,
    rollout_only: bool = False,
    train_only: Path | None = None,
) -> None:
    """Begin a run, or go on with one.

    Args:
        config: file or name of the configuration of a run to begin.
        resume: folder of a run to go on with, instead.
        overrides: ``a.b=value``, after what the modes set.
        rollout_only: learn nothing, fill the log with the untrained policy's groups.
        train_only: folder of the run whose log is learned from, instead of rolling out.

    Raises:
        ValueError: not exactly one of config and folder is given.
    """
    if (config is None) == (resume is None):
        raise ValueError("name either a config or, with --resume, the folder of a run to go on with")
    if resume is not None:
        run_training(resumed_config(resume, overrides), resume=True)
    elif config is not None:
        mode = ["loop.learn=false", "output.experience=states"] if rollout_only else []
        mode += [] if train_only is None else [f"loop.feed={train_only.resolve()}"]
        run_training(load_config(config, (*mode, *overrides)))


def main(
    config: Annotated[str, typer.Option(help="a YAML file, or a packaged config")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override; repeatable")] = None,
) -> None:
    """Run a post-training to its end, as a Ray job; a job that is submitted again goes on where the run was left."""
    with plain_errors():
        chosen = load_config(config, set_)
        started = is_the_same_run(chosen)
        if started and is_over(chosen):
            print(f"{RunFolder.of(chosen).path} is finished already")
            return
        if started:
            check_plan(chosen)
        run_training(chosen, resume=started)


if __name__ == "__main__":
    typer.run(main)
