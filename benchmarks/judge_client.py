"""Images a second that our client can ask about, alone: beside a server that answers at once and judges nothing.

    python -m benchmarks.judge_client

One process of asyncio asks for a whole pool of judges, so that what it can do bounds what they can. Measured in one
run: images inside requests (as a server elsewhere gets them) and in files (as one of ours does), all connections in one
pool and in several. Leaves ``benchmarks/results/judge_client.json``.
"""

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from aiohttp import web

from benchmarks.judge_throughput import fresh_groups, pace
from benchmarks.results import Figure, write
from rc_grpo.config import EditScoreConfig
from reward_service.asking import transport
from reward_service.editscore import EditScoreJudge
from reward_service.factory import digit_questions, family, prompts
from reward_service.logits.judge import LogitsJudge
from reward_service.serving.shown import Files, Show, in_requests
from reward_service.vision_judge import VisionJudge

SIDE, SIZE, IN_FLIGHT, PORT = 512, 12, 192, 18_999
MOST_BYTES = 2**26
TEXT, LOGITS = "text", "logits"
BEFORE, SPREAD, NOW = "in requests, one pool", "in requests", "in files"


class Stub:
    """Stands for an endpoint.

    Args:
        shown: how it is shown images.
    """

    restarts, api_key, url = 0, "key", f"http://127.0.0.1:{PORT}/v1"

    def __init__(self, shown: Callable[[], AbstractContextManager[Show]]) -> None:
        self.shown = shown

    async def open(self) -> None:
        """Serve at once."""

    async def ready(self) -> None:
        """Serve always."""

    async def metrics(self) -> str:
        """Return none."""
        return ""

    async def close(self) -> None:
        """Have nothing to close."""


def serve() -> None:
    """Answer every chat at once: by a mark's chances, where they are asked for, else by an answer with two marks."""

    async def chat(request: web.Request) -> web.Response:
        told = [{"token": str(mark), "logprob": -1.0 - mark, "bytes": [48 + mark]} for mark in range(10)]
        choice = {"index": 0, "message": {"role": "assistant", "content": '{"reasoning": "so", "score": [7, 8]}'}}
        if b'"logprobs"' in await request.read():
            choice |= {"logprobs": {"content": [told[0] | {"top_logprobs": told}]}}
        choice |= {"finish_reason": "stop"}
        return web.json_response({"id": "x", "object": "chat.completion", "model": "m", "choices": [choice]})

    app = web.Application(client_max_size=MOST_BYTES)
    app.router.add_post("/v1/chat/completions", chat)
    web.run_app(app, host="127.0.0.1", port=PORT, print=None)


@contextmanager
def served() -> Iterator[None]:
    """Serve from a process of its own."""
    process = multiprocessing.get_context("spawn").Process(target=serve, daemon=True)
    process.start()
    time.sleep(5)
    try:
        yield
    finally:
        process.terminate()
        process.join()


def judge(way: str, endpoint: Stub) -> VisionJudge:
    """Return a judge that asks in one of the ways."""
    logits = {"scoring": LOGITS, "logits": {"held": True}} if way == LOGITS else {}
    config = EditScoreConfig.model_validate(
        {"kind": "editscore", "model": "m", "family": "qwen2_5_vl", "client": {"concurrency": IN_FLIGHT}, **logits}
    )
    if way == LOGITS:
        return LogitsJudge(config, endpoint, digit_questions(config), family(config))
    return EditScoreJudge(config, endpoint, prompts(config), family(config))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--groups", type=int, default=16, help="of each measurement")
    count = parser.parse_args().groups
    groups = list(fresh_groups(count, 1, size=SIZE, side=SIDE))
    files = Files()
    ways = {BEFORE: (1, in_requests), SPREAD: (transport.POOLS, in_requests), NOW: (transport.POOLS, files.shown)}
    found: dict[str, dict[str, float]] = {}
    with served():
        for way in (TEXT, LOGITS):
            found[way] = {}
            for name, (pools, shown) in ways.items():
                transport.POOLS = pools
                found[way][name] = asyncio.run(pace(judge(way, Stub(shown)), groups, count))
                print(f"{way}, {name}: {found[way][name]:.1f} images/s", flush=True)
    files.close()
    setting = f"{count} groups of {SIZE} at {SIDE}x{SIDE}, {IN_FLIGHT} requests in flight"
    figures = {
        f"{way}_{what}": figure
        for way, rates in found.items()
        for what, figure in {
            "images_per_second": Figure(rates[NOW], "images/s", "at least 30", setting),
            "over_requests": Figure(rates[NOW] / rates[BEFORE], "x", None, "files over requests from one pool"),
        }.items()
    }
    print(write("judge_client", figures, found))


if __name__ == "__main__":
    main()
