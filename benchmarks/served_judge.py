"""The packaged pocket judge on a real vLLM server of its own, for benchmarks: no Ray, one asyncio loop."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.configs import load_config
from rc_grpo.config import EditScoreConfig, SamplingConfig
from reward_service.editscore import EditScoreJudge
from reward_service.factory import digit_questions, family, model, prompts
from reward_service.logits.judge import LogitsJudge
from reward_service.vllm_server import VllmServer


def pocket_judge_config() -> EditScoreConfig:
    """Return the judge of the packaged config ``pocket_vllm``."""
    config = load_config("pocket_vllm").reward.judges["editscore"]
    assert isinstance(config, EditScoreConfig)
    return config


@asynccontextmanager
async def serving(config: EditScoreConfig) -> AsyncIterator[VllmServer]:
    """Serve the configured model on this machine's GPU, if it asks for one, else on the CPU."""
    on_gpu = config.resources.num_gpus > 0
    with tempfile.TemporaryDirectory() as logs:
        server = VllmServer("benchmark", model(config), config.model, config.server, Path(logs), on_gpu=on_gpu)
        try:
            await server.open()
            yield server
        finally:
            await server.close()


def logits_judge_on(server: VllmServer, config: EditScoreConfig) -> LogitsJudge:
    """Return a judge that asks that server for the chances of digits."""
    return LogitsJudge(config, server, digit_questions(config), family(config))


def judge_on(server: VllmServer, config: EditScoreConfig, sampling: SamplingConfig | None = None) -> EditScoreJudge:
    """Return a judge that asks that server."""
    chosen = config if sampling is None else config.model_copy(update={"sampling": sampling})
    return EditScoreJudge(chosen, server, prompts(config), family(config))
