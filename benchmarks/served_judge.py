"""The packaged pocket judge on a real vLLM server of its own, for benchmarks: no Ray, one asyncio loop."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.configs import load_config
from rc_grpo.config import EditScoreConfig, SamplingConfig
from reward_service.editscore import EditScoreJudge
from reward_service.factory import family, model, prompts
from reward_service.vllm_server import VllmServer


def pocket_judge_config() -> EditScoreConfig:
    """Return the judge of the packaged config ``pocket_vllm``."""
    config = load_config("pocket_vllm").reward.judges["editscore"]
    assert isinstance(config, EditScoreConfig)
    return config


@asynccontextmanager
async def serving(config: EditScoreConfig) -> AsyncIterator[VllmServer]:
    """Serve the configured model on this machine's CPU."""
    with tempfile.TemporaryDirectory() as logs:
        server = VllmServer("benchmark", model(config), config.model, config.server, Path(logs), on_gpu=False)
        try:
            await server.open()
            yield server
        finally:
            await server.close()


def judge_on(server: VllmServer, config: EditScoreConfig, sampling: SamplingConfig | None = None) -> EditScoreJudge:
    """Return a judge that asks that server."""
    chosen = config if sampling is None else config.model_copy(update={"sampling": sampling})
    return EditScoreJudge(chosen, server, prompts(config), family(config))
