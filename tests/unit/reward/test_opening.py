"""A judge that opens: what is wrong with its server is said then, in one line that names the way out."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from rc_grpo.config import ClientConfig, EditScoreConfig, ServerConfig
from reward_service.editscore import EditScoreJudge
from reward_service.endpoint import AttachedServer
from reward_service.judge import JudgeSetupError
from reward_service.prompts import DEFAULT_PROMPTS, Prompts
from tests.unit.reward.chat_server import ChatServer, Reply, marks, serving, texts

CLIENT = ClientConfig(request_deadline_s=2.0, tries=2, backoff_s=0.001, backoff_max_s=0.002)
CONFIG = EditScoreConfig(kind="editscore", model="judge", client=CLIENT)


async def good(body: dict[str, Any]) -> web.Response:
    return texts(*[marks(20, 20)] * body["n"])


def judge_at(url: str, server: ServerConfig | None = None, key: str = "key") -> EditScoreJudge:
    endpoint = AttachedServer(url, key, server or ServerConfig(start_deadline_s=5))
    return EditScoreJudge(CONFIG, endpoint, Prompts.load(DEFAULT_PROMPTS), "qwen2_5_vl")


def opened(reply: Reply = good, prepare: Callable[[ChatServer], None] = lambda _: None) -> list[dict[str, Any]]:
    """Open a judge; return what its server was asked."""

    async def run() -> list[dict[str, Any]]:
        async with serving(reply) as server:
            prepare(server)
            judge = judge_at(server.url)
            try:
                await judge.open()
            finally:
                await judge.close()
            return server.requests

    return asyncio.run(asyncio.wait_for(run(), 20))


@pytest.mark.parametrize(
    "body", ["<html>sign in</html>", "", "null", "[]", '{"data": null}', '{"data": ["judge"]}', '{"data": [{"id": 3}]}']
)
def test_a_list_of_models_that_is_none_is_a_wrong_setup_in_one_line(body: str) -> None:
    def prepare(server: ChatServer) -> None:
        server.models_answer = lambda: web.Response(text=body)

    with pytest.raises(
        JudgeSetupError, match=r"/v1/models answered 200, and not by the OpenAI protocol.*urls"
    ) as error:
        opened(prepare=prepare)
    assert "\n" not in str(error.value)


def test_of_many_models_a_few_are_named() -> None:
    def prepare(server: ChatServer) -> None:
        server.models_answer = lambda: web.json_response({"data": [{"id": f"m{index}"} for index in range(500)]})

    with pytest.raises(JudgeSetupError, match=r"no model 'judge'; it has m0, .*m9 and 490 more$"):
        opened(prepare=prepare)
