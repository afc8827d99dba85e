"""A judge whose server answers nonsense now and then: a proxy before a real vLLM server, in a process' own thread."""

import asyncio
import json
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
from aiohttp import web

from reward_service.vllm_server import VllmServer

Done = TypeVar("Done")

NONSENSE = (
    "",
    "I would give it 20 and 22.",
    '{"reasoning": "cut',
    '{"reasoning": "", "score": [12]}',
    '{"reasoning": "", "score": [12, 31]}',
    '{"reasoning": "", "score": [NaN, 12]}',
)


class CorruptingProxy:
    """Passes everything on to a server, and spoils a share of its answers.

    Args:
        server: that really answers.
        share: of the answers that are spoiled.
        seed: of the draw.
    """

    def __init__(self, server: VllmServer, share: float, seed: int) -> None:
        self.answers = self.corrupted = 0
        self.url = ""
        self._server = server
        self._share = share
        self._random = random.Random(seed)

    @property
    def key(self) -> str:
        return self._server.api_key

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._forward)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}/v1".format(*runner.addresses[0][:2])
        return runner

    async def _forward(self, request: web.Request) -> web.Response:
        async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
            answer = await client.request(
                request.method,
                self._server.url.removesuffix("/v1") + request.path,
                content=await request.read(),
                headers={"Authorization": request.headers.get("Authorization", ""), "Content-Type": "application/json"},
            )
        content = answer.content
        if request.path.endswith("/chat/completions") and answer.is_success:
            content = self._spoiled(answer.json())
        kind = answer.headers.get("content-type", "text/plain").split(";")[0]
        return web.Response(body=content, status=answer.status_code, content_type=kind)

    def _spoiled(self, answer: dict) -> bytes:  # type: ignore[type-arg]
        for choice in answer["choices"]:
            self.answers += 1
            if self._random.random() < self._share:
                self.corrupted += 1
                choice["message"]["content"] = self._random.choice(NONSENSE)
        return json.dumps(answer).encode()


@contextmanager
def corrupting(server: VllmServer, share: float, seed: int) -> Iterator[CorruptingProxy]:
    """Stand before a server with a share of nonsense, on an asyncio loop of its own."""
    proxy = CorruptingProxy(server, share, seed)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def do(work: Coroutine[Any, Any, Done]) -> Done:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    runner = do(proxy.start())
    try:
        yield proxy
    finally:
        do(runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
