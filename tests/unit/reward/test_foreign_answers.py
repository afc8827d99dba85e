"""A server that answers HTTP 200 with what is no completion: a failed try, and never an error of Python's own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from rc_grpo.config import ClientConfig, SamplingConfig
from reward_service.asking.client import ChatClient, ForeignServerError
from reward_service.asking.openai_answers import Completion, ForeignAnswerError, read_completions, read_models
from reward_service.asking.transport import LIMIT_BYTES
from reward_service.contract import ANSWER_SCHEMA
from reward_service.judge import JudgeUnavailableError
from tests.unit.reward.chat_server import Reply, serving, texts

QUICK = ClientConfig(request_deadline_s=5.0, tries=2, backoff_s=0.001, backoff_max_s=0.002)
PAGE = "<!DOCTYPE html><html><body>Please sign in</body></html>"


def choice(**message: Any) -> str:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})


FOREIGN = {
    "a page": PAGE,
    "nothing": "",
    "white space": " \n",
    "an error": '{"error": {"message": "no upstream is healthy", "code": 502}}',
    "half a body": texts("one").text[:-20],  # type: ignore[index]
    "null": "null",
    "a string": '"choices"',
    "a number": "42",
    "a list": "[]",
    "no choices": "{}",
    "choices null": '{"choices": null}',
    "choices empty": '{"choices": []}',
    "choices an object": '{"choices": {"0": {"message": {"content": "x"}}}}',
    "a choice null": '{"choices": [null]}',
    "a choice of text": '{"choices": [{"text": "of the older protocol"}]}',
    "a message null": '{"choices": [{"message": null}]}',
    "a message of text": '{"choices": [{"message": "x"}]}',
    "a message of a list": '{"choices": [{"message": [1]}]}',
    "content a number": choice(content=7),
    "content an object": choice(content={"text": "x"}),
    "content of numbers": choice(content=[1, 2]),
    "content of a part with wrong text": choice(content=[{"type": "text", "text": ["x"]}]),
    "content of a part with wrong type": choice(content=[{"type": 3, "text": "x"}]),
    "brackets": 5000 * "[",
    "brackets in a choice": '{"choices": ' + 200_000 * "[",
    "digits": '{"choices": [{"message": {"content": "x"}}], "created": ' + 5000 * "1" + "}",
}


async def ask(client: ChatClient) -> list[Completion]:
    messages = [{"role": "user", "content": "hello"}]
    return await client.complete(messages, SamplingConfig(), ANSWER_SCHEMA, count=1, seed=42)


def against(reply: Reply, *, config: ClientConfig = QUICK) -> tuple[list[Completion], int]:
    async def run() -> tuple[list[Completion], int]:
        async with serving(reply) as server:
            client = ChatClient(server.url, "key", "judge", config)
            try:
                return await ask(client), len(server.requests)
            finally:
                await client.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def answering(*bodies: str | bytes, kind: str = "application/json") -> Reply:
    left = list(bodies)

    async def reply(_: dict[str, Any]) -> web.Response:
        body = left.pop(0) if len(left) > 1 else left[0]
        return web.Response(body=body if isinstance(body, bytes) else body.encode(), content_type=kind)

    return reply


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_completion_is_a_failed_try_and_the_next_one_counts(name: str, kind: str) -> None:
    good = texts("at last").text
    assert good is not None
    completions, asked = against(answering(FOREIGN[name], good, kind=kind))
    assert completions == [Completion("at last", True)]
    assert asked == 2


@pytest.mark.parametrize("name", FOREIGN)
def test_what_stays_none_is_said_with_the_address_and_how_it_begins(name: str) -> None:
    with pytest.raises(
        ForeignServerError, match=r"^http://127.*/v1/chat/completions answered 200, and not by"
    ) as caught:
        against(answering(FOREIGN[name]))
    said = str(caught.value)
    begin = "no upstream is healthy" if name == "an error" else " ".join(FOREIGN[name].split())[:40] or "an empty body"
    assert begin in said
    assert len(said) < 600
    assert "\n" not in said
    assert isinstance(caught.value, JudgeUnavailableError)


def test_a_body_of_a_hundred_megabytes_is_not_read_to_its_end() -> None:
    sent: list[int] = []

    async def run() -> None:
        async def endless(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    await response.write(b" " * 2**20)
                    sent.append(2**20)
            return response

        async with application(endless) as url:
            client = ChatClient(url, "key", "judge", QUICK.model_copy(update={"tries": 1}))
            with pytest.raises(ForeignServerError, match="more than can be one"):
                await ask(client)
            await client.close()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert sum(sent) < 4 * LIMIT_BYTES


@contextlib.asynccontextmanager
async def application(handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}/v1".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


RAW = {
    "nothing at all": b"",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "less than it promised": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
    "a header that is none": b"HTTP/1.1 200 OK\r\n\x00\x00: \r\n\r\n",
    "a body not compressed as it says": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_not_even_http_is_a_failed_try_too(name: str) -> None:
    tries = 0

    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal tries
            tries += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(RAW[name])
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = ChatClient(f"http://127.0.0.1:{port}/v1", "key", "judge", QUICK)
        with pytest.raises(JudgeUnavailableError, match=f":{port}/v1/chat/completions did not answer 2 tries"):
            await ask(client)
        await client.close()
        server.close()

    asyncio.run(asyncio.wait_for(run(), 20))
    assert tries == 2


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "to"}, {"type": "text", "text": "gether"}], "together"),
        ([{"type": "output_text", "text": "x"}, {"type": "image_url", "image_url": {"url": "y"}}], "x"),
        (["a", "b"], "ab"),
    ],
)
def test_content_in_parts_is_one_text(content: Any, text: str) -> None:
    assert read_completions(choice(content=content)) == [Completion(text, True)]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"content": None}, "finish_reason 'stop'"),
        ({"role": "assistant"}, "finish_reason 'stop'"),
        ({"content": []}, "finish_reason 'stop'"),
        ({"content": None, "refusal": "I cannot"}, "refusal 'I cannot'"),
    ],
)
def test_a_message_without_text_is_an_answer_that_says_nothing_and_why(message: Any, why: str) -> None:
    (completion,) = read_completions(choice(**message))
    assert (completion.text, completion.finished) == ("", False)
    assert why in completion.remark


def test_a_text_that_was_not_ended_by_the_model_says_by_what() -> None:
    body = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]})
    assert read_completions(body) == [Completion("x", False, "ended by finish_reason 'content_filter'")]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "type", "text", "finish_reason", "data", "id", "refusal"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=50)
@given(JSON.map(json.dumps) | st.text())
def test_whatever_is_sent_is_read_or_said_to_be_foreign(body: str) -> None:
    with contextlib.suppress(ForeignAnswerError):
        completions = read_completions(body)
        assert completions
        assert all(isinstance(item.text, str) and isinstance(item.finished, bool) for item in completions)
    with contextlib.suppress(ForeignAnswerError):
        assert all(isinstance(name, str) for name in read_models(body))
