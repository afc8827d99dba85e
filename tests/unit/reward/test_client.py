"""The client against a real HTTP server: patient with what passes, plain about what stays."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from rc_grpo.config import ClientConfig, SamplingConfig
from reward_service.asking.client import ChatClient, RequestRefusedError
from reward_service.asking.openai_answers import Completion
from reward_service.contract import ANSWER_SCHEMA
from reward_service.judge import JudgeSetupError, JudgeUnavailableError
from tests.unit.reward.chat_server import ChatServer, Reply, refusal, serving, texts

QUICK = ClientConfig(concurrency=4, request_deadline_s=10, tries=3, backoff_s=0.01, backoff_max_s=0.02)
IMPATIENT = QUICK.model_copy(update={"request_deadline_s": 0.5})
CHAT = [{"role": "user", "content": "hello"}]


async def ask(client: ChatClient, count: int = 1, seed: int = 42) -> list[Completion]:
    return await client.complete(CHAT, SamplingConfig(), ANSWER_SCHEMA, count=count, seed=seed)


def against(reply: Reply, scenario: Any, config: ClientConfig = QUICK) -> Any:
    async def run() -> Any:
        async with serving(reply) as server:
            client = ChatClient(server.url, "key", "judge", config)
            try:
                return await scenario(server, client)
            finally:
                await client.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_a_request_says_all_that_decides_an_answer() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return texts("one", "two")

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        assert await ask(client, count=2, seed=7) == [Completion("one", True), Completion("two", True)]
        (body,) = server.requests
        expected = {
            "model": "judge",
            "n": 2,
            "seed": 7,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 20,
            "max_tokens": 512,
        }
        assert {key: body[key] for key in expected} == expected
        assert body["response_format"]["json_schema"]["schema"] == ANSWER_SCHEMA

    against(reply, scenario)


def test_a_text_that_was_cut_off_says_so() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return texts("half of", finish="length")

    async def scenario(_: ChatServer, client: ChatClient) -> None:
        assert await ask(client) == [Completion("half of", False)]

    against(reply, scenario)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_passes_is_tried_again(status: int) -> None:
    answers = iter([refusal(status, "busy"), refusal(status, "busy"), texts("at last")])

    async def reply(_: dict[str, Any]) -> web.Response:
        return next(answers)

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        assert (await ask(client))[0].text == "at last"
        assert len(server.requests) == 3

    against(reply, scenario)


@pytest.mark.parametrize("status", [429, 503])
def test_what_does_not_pass_in_time_makes_the_judge_unavailable(status: int) -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(status, "still busy")

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        with pytest.raises(JudgeUnavailableError, match=f"{status}.*still busy"):
            await ask(client)
        assert len(server.requests) == 3

    against(reply, scenario)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_refused_is_not_repeated(status: int) -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(status, "cannot identify image file")

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        with pytest.raises(RequestRefusedError, match="cannot identify image file"):
            await ask(client)
        assert len(server.requests) == 1

    against(reply, scenario)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_is_a_wrong_setup_and_not_a_failed_score(status: int) -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(status, "no such thing")

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        with pytest.raises(JudgeSetupError, match=r"no such thing.*urls, model and key"):
            await ask(client)
        assert len(server.requests) == 1

    against(reply, scenario)


def test_a_silent_server_is_given_up_at_the_deadline_of_each_try() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        await asyncio.sleep(30)
        return texts("too late")

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        with pytest.raises(JudgeUnavailableError, match=r"3 tries \(0\.5 s each\)"):
            await ask(client)
        assert len(server.requests) == 3

    against(reply, scenario, IMPATIENT)


def test_no_server_at_all_makes_the_judge_unavailable() -> None:
    async def scenario() -> None:
        client = ChatClient("http://127.0.0.1:9/v1", "key", "judge", QUICK)
        with pytest.raises(JudgeUnavailableError, match="127"):
            await ask(client)

    asyncio.run(scenario())


def test_requests_in_flight_are_bounded() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        await asyncio.sleep(0.02)
        return texts("x")

    async def scenario(server: ChatServer, client: ChatClient) -> None:
        await asyncio.gather(*(ask(client) for _ in range(20)))
        assert server.most_at_once == QUICK.concurrency

    against(reply, scenario)
