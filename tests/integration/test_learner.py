"""The distributed learner against the sequential program, and a checkpoint that is restored."""

import asyncio
from pathlib import Path

import pytest
import torch

from benchmarks.sequential import run as run_sequentially
from learner.group import LearnerGroup
from learner.work import RunShape
from rc_grpo.config import RunConfig
from rc_grpo.editor.export import read_lora
from tests.integration.conftest import short_config, train_short

pytestmark = pytest.mark.usefixtures("cluster")


def learner_of(config: RunConfig) -> LearnerGroup:
    shape = RunShape(config.seed, config.rollout.solver, config.rollout.steps, config.loop.updates, 0, {"j": 1.0})
    return LearnerGroup(config.editor, config.learner, config.objective, shape, f"restored-{config.name}")


def test_synchronous_training_is_the_sequential_program(tmp_path: Path) -> None:
    run = train_short(tmp_path, "distributed")
    config = short_config(tmp_path, "sequential")
    expected = run_sequentially(config, log=lambda record: None, every=100, deadline=float("inf"))
    weights = read_lora(config.editor.lora, run.folder / "lora")
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    async def restore() -> None:
        learner = learner_of(short_config(tmp_path, "missing"))
        try:
            await learner.open()
            await learner.load(tmp_path, "update-99999")
        finally:
            learner.close()

    with pytest.raises(FileNotFoundError, match="update-99999"):
        asyncio.run(restore())
