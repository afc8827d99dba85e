"""In vLLM's place, by its command line: a server whose marks are a function of the pictures."""

import argparse
import asyncio
import hashlib
import json
import os
from typing import Any

from aiohttp import web

from tests.unit.reward.chat_server import marks, serving, texts

LOWEST, HIGHEST = 5, 25


async def _judge(body: dict[str, Any]) -> web.Response:
    seen = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    first, second = (LOWEST + byte % (HIGHEST - LOWEST + 1) for byte in seen[:2])
    return texts(*[marks(first, second, "by a stand-in")] * body["n"])


async def _serve(name: str, port: int) -> None:
    async with serving(_judge, port, os.environ["VLLM_API_KEY"]) as server:
        server.models_answer = lambda: web.json_response({"object": "list", "data": [{"id": name, "object": "model"}]})
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--port", type=int, required=True)
    given, _ = parser.parse_known_args()
    asyncio.run(_serve(given.served_model_name, given.port))
