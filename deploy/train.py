"""Entry point of a training job: ``rc-grpo train CONFIG``, or ``python -m deploy.train --config CONFIG`` under Ray."""

import asyncio

import ray

from deploy.cluster import connect
from deploy.loop import train
from deploy.progress import Progress
from deploy.run import Run
from rc_grpo.config import RunConfig
from rc_grpo.editor.kontext import check_model


def run_training(config: RunConfig) -> None:
    """Check everything that can be checked cheaply, connect to Ray, train."""
    check_model(config.editor, config.rollout.acd)
    with Progress() as progress:
        run = Run(config, progress)
        connect(config)
        try:
            asyncio.run(train(run))
        finally:
            ray.shutdown()
