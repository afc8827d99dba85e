"""A real HTTP server of the OpenAI chat protocol whose answers a test decides."""

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Reply = Callable[[dict[str, Any]], Awaitable[web.Response]]


def texts(*contents: str, finish: str = "stop") -> web.Response:
    """The response that carries these texts."""
    choices = [
        {"index": index, "message": {"role": "assistant", "content": content}, "finish_reason": finish}
        for index, content in enumerate(contents)
    ]
    return web.json_response(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "judge", "choices": choices}
    )


def chances(likeliest: Mapping[str, float]) -> web.Response:
    """The response of one token with these probabilities, in vLLM's form."""
    told = [{"token": token, "logprob": math.log(chance)} for token, chance in likeliest.items()]
    first = told[0] if told else {"token": "", "logprob": 0.0}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": first["token"]},
        "logprobs": {"content": [{**first, "top_logprobs": told}]},
        "finish_reason": "length",
    }
    return web.json_response({"id": "x", "object": "chat.completion", "model": "judge", "choices": [choice]})


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "Error", "code": status}}, status=status)


def marks(first: int, second: int, reasoning: str = "so") -> str:
    return json.dumps({"reasoning": reasoning, "score": [first, second]})


class ChatServer:
    """What was asked of it, and where it is."""

    def __init__(self, reply: Reply, key: str = "key") -> None:
        self.requests: list[dict[str, Any]] = []
        self.models_answer: Callable[[], web.Response] = lambda: web.json_response(
            {"object": "list", "data": [{"id": "judge", "object": "model"}]}
        )
        self.health_answer: Callable[[], web.Response] = web.Response
        self.url = ""
        self.at_once = self.most_at_once = 0
        self._reply, self._key = reply, key

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append(body)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await self._reply(body)
        finally:
            self.at_once -= 1

    async def models(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._key}":
            return refusal(401, "Unauthorized")
        return self.models_answer()

    async def health(self, request: web.Request) -> web.Response:
        return self.health_answer()


@asynccontextmanager
async def serving(reply: Reply, port: int = 0, key: str = "key") -> AsyncIterator[ChatServer]:
    server = ChatServer(reply, key)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/v1/models", server.models)
    app.router.add_get("/health", server.health)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
