"""Looking at judge servers from where a run is started, before anything of it is."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rc_grpo.config import AnyJudgeConfig, EditScoreConfig, ServedConfig
from rc_grpo.editor.geometry import resize_image
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import EditTask
from reward_service.asking.client import ChatClient, ForeignServerError, RequestRefusedError
from reward_service.asking.transport import NoReplyError
from reward_service.editscore import EditScoreJudge, Sample
from reward_service.factory import make_judge
from reward_service.judge import Judge, JudgeSetupError, JudgeUnavailableError, ServedJudge, Verdict
from reward_service.scoring import verdicts_of
from reward_service.serving.endpoint import AttachedServer

State = Literal["serves", "loads", "unusable"]


@dataclass(frozen=True)
class Finding:
    """How an attached server is.

    Attributes:
        judge: name in the configuration.
        url: of its API.
        state: ``serves`` the judge's model to us; ``loads``, or is too busy to say: a run would wait for it; or is
            ``unusable``: a run would end.
        said: why it does not serve, on one line; empty where it does.
    """

    judge: str
    url: str
    state: State
    said: str = ""


async def probe(judges: Mapping[str, AnyJudgeConfig]) -> list[Finding]:
    """Look at every server of ``urls``: is it there, does it take our key, does it have the model. All at once.

    Takes ``server.reach_deadline_s`` where nobody listens, and a few ``server.probe_deadline_s`` where nobody answers.
    No question is asked. What a node of the cluster can reach may differ from what is reached from here.

    Args:
        judges: by name; those without urls are passed over.
    """
    attached = [
        (name, config, url)
        for name, config in judges.items()
        if isinstance(config, ServedConfig)
        for url in dict.fromkeys(config.urls)
    ]
    return list(await asyncio.gather(*(_look(name, config, url) for name, config, url in attached)))


async def sample(config: EditScoreConfig, task: EditTask, edited: Pixels, logs: Path) -> Sample:
    """Ask a judge its question with two images about one edit.

    Of an attached judge the first server is asked. One without urls starts its server here, as a run's actor would, and
    ends it after the answer.

    Args:
        config: of the judge.
        task: what was to be edited; its source is resized to the edit, as for scoring.
        edited: the edit ``[H, W, 3]``.
        logs: folder for the log of a server that is started.

    Raises:
        JudgeSetupError: its server cannot be used.
        reward_service.vllm_server.ServerStartError: its own server does not start; with the end of its log.
        JudgeUnavailableError: it can be used, but not now.
    """
    height, width = edited.shape[:2]
    async with opened(config, logs) as judge:
        assert isinstance(judge, EditScoreJudge)
        return await judge.sample(task.instruction, resize_image(decode_rgb(task.source), height, width), edited)


async def verdicts(config: AnyJudgeConfig, task: EditTask, images: NDArray[np.uint8], logs: Path) -> list[Verdict]:
    """Have a judge of any kind score edits ``[B, H, W, 3]`` of a task; arguments and errors are those of `sample`.

    What a score fails of is in its verdict, as in a run.
    """
    async with opened(config, logs) as judge:
        return await verdicts_of(judge, task, images, config.kind)


@asynccontextmanager
async def opened(config: AnyJudgeConfig, logs: Path) -> AsyncIterator[Judge]:
    """Make a judge of any kind in this process, with what it has to start, for as long as the context lasts.

    Arguments and errors are those of `sample`.
    """
    attach = (config.urls[0], _key(config)) if isinstance(config, ServedConfig) and config.urls else None
    judge = await asyncio.to_thread(make_judge, "check", config, logs, attach)
    if not isinstance(judge, ServedJudge):
        yield judge
        return
    try:
        if attach is None:
            await judge.open()
        yield judge
    except RequestRefusedError as error:
        raise JudgeSetupError(str(error)) from error
    finally:
        await judge.close()


async def _look(name: str, config: ServedConfig, url: str) -> Finding:
    try:
        state, said = await _state(config, url)
    except (JudgeSetupError, ForeignServerError) as error:
        state, said = "unusable", str(error)
    return Finding(name, url, state, said)


async def _state(config: ServedConfig, url: str) -> tuple[State, str]:
    server = AttachedServer(url, _key(config), config.server)
    quick = config.client.model_copy(update={"tries": 1, "request_deadline_s": config.server.probe_deadline_s})
    client = ChatClient(server.url, server.api_key, config.model, quick)
    try:
        health = await server.reach()
        if health.passes:
            return "loads", f"{url} answers its health probe with {health.status}: {health.gist}"
        await client.require_model()
    except ForeignServerError:
        raise
    except (NoReplyError, JudgeUnavailableError) as error:
        return "loads", f"{url}: {error}"
    finally:
        await client.close()
        await server.close()
    return "serves", ""


def _key(config: ServedConfig) -> str:
    if (key := os.environ.get(config.api_key_variable)) is None:
        raise JudgeSetupError(f"the judge has urls; set ${config.api_key_variable} to their key")
    return key
