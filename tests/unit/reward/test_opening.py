"""A judge that opens: what is wrong with its server is said then, in one line that names the way out."""

import asyncio
import base64
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from rc_grpo.config import ClientConfig, EditScoreConfig, ServerConfig
from rc_grpo.images import decode_rgb
from rc_grpo.waiting import DeadlineExceededError
from reward_service.contract import ANSWER_SCHEMA
from reward_service.editscore import EditScoreJudge
from reward_service.judge import JudgeSetupError
from reward_service.prompts import DEFAULT_PROMPTS, Prompts
from reward_service.serving.endpoint import AttachedServer
from tests.unit.reward.chat_server import ChatServer, Reply, marks, refusal, serving, texts

CLIENT = ClientConfig(request_deadline_s=2.0, tries=2, backoff_s=0.001, backoff_max_s=0.002)
CONFIG = EditScoreConfig(kind="editscore", model="judge", client=CLIENT)


def refused(status: int, message: str) -> Reply:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(status, message)

    return reply


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


def test_one_small_question_with_two_images_is_asked() -> None:
    (body,) = opened()
    parts = body["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    images = [decode_rgb(base64.b64decode(url.removeprefix("data:image/png;base64,"))) for url in urls]
    assert [image.shape for image in images] == [(128, 128, 3)] * 2
    assert (images[0] != images[1]).any()
    assert (body["n"], body["max_tokens"]) == (1, 8)
    assert body["response_format"]["json_schema"]["schema"] == ANSWER_SCHEMA
    assert len(json.dumps(body)) < 20_000


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "At most 1 image(s) may be provided in one prompt. Set `--limit-mm-per-prompt` to increase this limit."),
        (400, "response_format is not supported"),
        (404, "The model `judge` does not exist."),
        (413, "Request Entity Too Large"),
        (422, "Input should be a valid string"),
        (501, "This server does not support multimodal"),
        (402, "Insufficient credits"),
    ],
)
def test_a_refusal_of_it_is_a_wrong_setup_that_quotes_the_server(status: int, message: str) -> None:
    with pytest.raises(JudgeSetupError) as error:
        opened(refused(status, message))
    said = str(error.value)
    assert f"/v1/chat/completions answered {status}: {message}" in said
    assert "\n" not in said
    assert ("--limit-mm-per-prompt '{\"image\": 2}'" in said) == (status != 404)


@pytest.mark.parametrize("text", ["I would say twenty", "", '{"reasoning": "cu', marks(99, 99)])
@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_weak_answer_to_it_is_none(text: str, finish: str) -> None:
    async def weak(_: dict[str, Any]) -> web.Response:
        return texts(text, finish=finish)

    assert len(opened(weak)) == 1


def test_a_server_that_answers_it_by_no_completion_is_none_of_the_protocol() -> None:
    async def page(_: dict[str, Any]) -> web.Response:
        return web.Response(text="<html>sign in</html>", content_type="text/html")

    with pytest.raises(JudgeSetupError, match=r"chat/completions answered 200.*<html>sign in.*OpenAI chat protocol\?$"):
        opened(page)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_too_busy_for_it_is_left_to_the_first_group(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(opened(refused(status, "busy"))) == CLIENT.tries
    assert "the opening question is left unanswered: http://127.0.0.1" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1:9", "no-such-host.invalid:8000"])
def test_a_server_that_is_not_there_is_said_in_the_grace_and_not_at_the_deadline(host: str) -> None:
    judge = judge_at(f"http://{host}/v1", ServerConfig(start_deadline_s=600, reach_deadline_s=0.1))
    says = "connection refused" if "127" in host else "unknown host"
    with pytest.raises(JudgeSetupError, match=rf"^the judge's server at http://{host}/v1 cannot be .*: {says}.*urls$"):
        asyncio.run(asyncio.wait_for(judge.open(), 5))


def test_a_server_that_starts_within_the_grace_is_used() -> None:
    async def run() -> None:
        with socket.socket() as place:
            place.bind(("127.0.0.1", 0))
            port = place.getsockname()[1]
        judge = judge_at(f"http://127.0.0.1:{port}/v1", ServerConfig(reach_deadline_s=10))
        opening = asyncio.create_task(judge.open())
        await asyncio.sleep(0.1)
        async with serving(good, port):
            await opening
            await judge.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_server_that_loads_its_model_is_waited_for_longer_than_one_that_is_not_there() -> None:
    def prepare(server: ChatServer) -> None:
        answers = [refusal(503, "loading"), web.Response(status=502)]
        server.health_answer = lambda: answers.pop() if answers else web.Response()

    async def run() -> None:
        async with serving(good) as server:
            prepare(server)
            judge = judge_at(server.url, ServerConfig(reach_deadline_s=0.01))
            await judge.open()
            await judge.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_server_that_loads_for_ever_is_given_up_with_what_it_said_last() -> None:
    async def run() -> None:
        async with serving(good) as server:
            server.health_answer = lambda: refusal(503, "still loading")
            judge = judge_at(server.url, ServerConfig(start_deadline_s=0.1))
            with pytest.raises(DeadlineExceededError, match=r"start_deadline_s = 0\.1 \(last: .*503: still loading\)"):
                await judge.open()
            await judge.close()

    asyncio.run(asyncio.wait_for(run(), 10))


def test_a_server_without_a_health_probe_serves() -> None:
    def prepare(server: ChatServer) -> None:
        server.health_answer = lambda: refusal(404, "Not Found")

    assert len(opened(prepare=prepare)) == 1


def test_a_server_that_goes_away_later_may_be_away_longer_than_the_grace() -> None:
    async def run() -> None:
        server = AttachedServer(
            "http://127.0.0.1:9/v1", "key", ServerConfig(reach_deadline_s=0.01, start_deadline_s=0.7)
        )
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="connection refused"):
            await server.ready()
        assert time.monotonic() - started > 0.6
        await server.close()

    asyncio.run(asyncio.wait_for(run(), 10))
