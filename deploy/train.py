"""Entry point of a training job: ``rc-grpo train CONFIG``, or ``python -m deploy.train --config CONFIG`` under Ray."""

import asyncio
from typing import Annotated

import ray
import typer

from deploy.cluster import connect
from deploy.configs import load_config
from deploy.errors import plain_errors
from deploy.evaluating.preflight import check_training
from deploy.loop import train
from deploy.records.folder import RunFolder
from deploy.records.resuming import is_the_same_run
from deploy.run import Run
from deploy.stopping import RunStoppedError
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
    check_training(config)
    with Progress() as progress:
        run = Run(config, progress, resume=resume)
        progress.say(run.plan())
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


def main(
    config: Annotated[str, typer.Option(help="a YAML file, or a packaged config")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override; repeatable")] = None,
) -> None:
    """Run a post-training to its end, as a Ray job; a job that is submitted again goes on where the run was left."""
    with plain_errors():
        chosen = load_config(config, set_)
        started = is_the_same_run(chosen)
        if started and RunFolder.of(chosen).finished:
            print(f"{RunFolder.of(chosen).path} is finished already")
            return
        run_training(chosen, resume=started)


if __name__ == "__main__":
    typer.run(main)
