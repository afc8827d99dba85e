"""The distributed learner without a run around it."""

import asyncio
from pathlib import Path

import pytest

from learner.group import LearnerGroup
from learner.work import RunShape
from rc_grpo.config import RunConfig
from tests.integration.conftest import short_config

pytestmark = pytest.mark.usefixtures("cluster")


def learner_of(config: RunConfig) -> LearnerGroup:
    shape = RunShape(config.seed, config.rollout.solver, config.rollout.steps, config.loop.updates, 0, {"j": 1.0})
    return LearnerGroup(config.editor, config.learner, config.objective, shape, f"restored-{config.name}")


@pytest.mark.slow  # Its witness in the gate is an engine's: tests/unit/learner/test_checkpoint.py.
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
