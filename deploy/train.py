"""Entry point of a training job: ``rc-grpo train CONFIG``, or ``python -m deploy.train --config CONFIG`` under Ray."""

import asyncio
from typing import Annotated

import ray
import typer

from deploy.cluster import connect
from deploy.configs import load_config
from deploy.errors import plain_errors
from deploy.loop import train
from deploy.progress import Progress
from deploy.run import Run
from rc_grpo.config import RunConfig
from rc_grpo.editor.kontext import check_model
from reward_service.factory import check_judge


def run_training(config: RunConfig) -> None:
    """Check everything that can be checked cheaply, connect to Ray, train."""
    check_model(config.editor, config.rollout.acd)
    for name, judge in config.reward.judges.items():
        check_judge(name, judge)
    with Progress() as progress:
        run = Run(config, progress)
        progress.say(run.plan())
        connect(config)
        try:
            asyncio.run(train(run))
        finally:
            ray.shutdown()


def main(
    config: Annotated[str, typer.Option(help="a YAML file, or a packaged config")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=VALUE", help="override; repeatable")] = None,
) -> None:
    """Run a post-training to its end, as a Ray job."""
    with plain_errors():
        run_training(load_config(config, set_))


if __name__ == "__main__":
    typer.run(main)
