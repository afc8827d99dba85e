"""Images scored a second against concurrency, through our client, and through a plain client that asks one at a time.

All on one server of the packaged pocket judge, in one run. Every image is scored once and never shown again, so no
cache of the server serves an answer twice; what a group shares (source, rules) is shared as in training. An image is
two requests, of which each brings the configured number of passes.
"""

import argparse
import asyncio
import base64
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.served_judge import judge_on, pocket_judge_config, serving
from rc_grpo.config import EditScoreConfig
from rc_grpo.editor.geometry import resize_image
from rc_grpo.images import decode_rgb, encode_png
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import IMAGE_SIZE, PocketWorld
from reward_service.contract import ANSWER_SCHEMA, QUESTIONS, overall, parse_answer
from reward_service.factory import family, prompts
from reward_service.judge import Verdict
from reward_service.prompts import chat
from reward_service.vllm_server import VllmServer

GROUP = 8
CONCURRENCY = (1, 2, 4, 8, 16, 32)
Group = tuple[EditTask, NDArray[np.uint8]]


class Scores(Protocol):
    """What scores groups: a judge, or several."""

    async def score(self, task: EditTask, images: NDArray[np.uint8]) -> Sequence[Verdict]:
        """Score images ``[G, H, W, 3]`` of one task."""
        ...


def fresh_groups(count: int, seed: int, *, size: int = GROUP, side: int = IMAGE_SIZE) -> Iterator[Group]:
    """Yield groups of images that nobody has seen: targets under a little noise of their own."""
    noise = np.random.default_rng(seed)
    for task in PocketWorld("heldout", count, seed=seed):
        assert task.target is not None
        target = resize_image(decode_rgb(task.target), side, side).astype(np.float32)
        images = target + noise.normal(0, 4, (size, *target.shape))
        yield task, np.clip(images, 0, 255).astype(np.uint8)


def plain_score(client: httpx.Client, config: EditScoreConfig, group: Group) -> list[float]:
    """Score a group as a first script would: one request, wait, the next."""
    task, images = group
    asked, kind, sampling = prompts(config), family(config), config.sampling
    source, *edited = [
        f"data:image/png;base64,{base64.b64encode(png).decode()}"
        for png in (encode_png(decode_rgb(task.source)), *map(encode_png, images))
    ]
    rewards = []
    for image in edited:
        answers: dict[str, list[Any]] = {}
        for question in QUESTIONS:
            shown = [source, image] if question == "sc" else [image]
            body = {
                "model": config.model,
                "messages": chat(asked.question(question), shown, task.instruction, kind),
                "n": sampling.passes,
                "seed": sampling.seed,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "max_tokens": sampling.max_tokens,
                "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER_SCHEMA}},
            }
            answer = client.post("/chat/completions", json=body).raise_for_status().json()
            answers[question] = [parse_answer(choice["message"]["content"]).score for choice in answer["choices"]]
        passes = zip(answers["sc"], answers["pq"], strict=True)
        rewards.append(float(np.mean([overall(sc, pq) / 10 for sc, pq in passes])))
    return rewards


def plain_pace(server: VllmServer, config: EditScoreConfig, groups: list[Group]) -> float:
    """Return images a second of the plain client."""
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
        started = time.perf_counter()
        for group in groups:
            plain_score(client, config, group)
        return len(groups) * GROUP / (time.perf_counter() - started)


async def pace(judge: Scores, groups: list[Group], in_flight: int, least: float = 1.0) -> float:
    """Return images a second that got a score with so many groups under way; that share of them at least must."""
    places = asyncio.Semaphore(in_flight)

    async def one(group: Group) -> int:
        async with places:
            verdicts = await judge.score(*group)
        return sum(bool(np.isfinite(verdict.reward)) for verdict in verdicts)

    started = time.perf_counter()
    scored, asked = sum(await asyncio.gather(*(one(group) for group in groups))), sum(len(each[1]) for each in groups)
    seconds = time.perf_counter() - started
    assert scored >= least * asked, f"only {scored} of {asked} images got a score"
    return scored / seconds


async def measure(groups: int) -> tuple[dict[int, float], float]:
    """Return images a second by requests in flight, and of the plain client."""
    config = pocket_judge_config()
    async with serving(config) as server:
        await pace(judge_on(server, config), list(fresh_groups(2, 900)), 2)
        plain = await asyncio.to_thread(plain_pace, server, config, list(fresh_groups(max(2, groups // 4), 901)))
        found = {}
        for concurrency in CONCURRENCY:
            client = config.client.model_copy(update={"concurrency": concurrency})
            judge = judge_on(server, config.model_copy(update={"client": client}))
            found[concurrency] = await pace(
                judge, list(fresh_groups(groups, 1000 + concurrency)), config.groups_in_flight
            )
        return found, plain


def main() -> None:
    """Measure and write ``results/judge_throughput.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=24)
    by_concurrency, plain = asyncio.run(measure(parser.parse_args().groups))
    best = max(by_concurrency, key=lambda concurrency: by_concurrency[concurrency])
    passes = pocket_judge_config().sampling.passes
    note = f"two requests of {passes} passes each an image, groups of {GROUP}"
    figures = {
        "images_per_second": Figure(by_concurrency[best], "images/s", None, f"{note}; {best} requests in flight"),
        "images_per_second_sequential": Figure(
            plain, "images/s", None, f"{note}; a plain client, one request at a time"
        ),
        "speedup_over_sequential": Figure(by_concurrency[best] / plain, "times", None, "same server, same run"),
    }
    detail = {"images_per_second_by_concurrency": by_concurrency, "images_per_second_sequential": plain}
    print(results.write("judge_throughput", figures, detail).read_text())


if __name__ == "__main__":
    main()
