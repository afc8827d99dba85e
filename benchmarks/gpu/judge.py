"""Images judged a second by a server of our own on one GPU: by texts and by logits, in bfloat16 and in float8.

    python -m benchmarks.gpu.judge [--servers 2] [--model qwen3_vl_8b]
    python -m benchmarks.gpu.judge --small      # the pocket judge on the CPU, to try the script; writes nothing

A judge of Qwen2.5-VL's seven billion parameters, or Qwen3-VL's eight, with random weights; groups of twelve at 512x512;
source and edit, then the edit alone; one pass; reasonings as long as the answer's schema allows, as random weights do
not end one. A server's own Python leaves a GPU half idle: several share it, and each group goes to one. vLLM is the one
that this Python imports. Leaves ``benchmarks/results/gpu_judge.json``, of the second size ``gpu_judge_qwen3_vl_8b``.
"""

import argparse
import asyncio
import logging
import shlex
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.gpu import judge_of_full_size
from benchmarks.gpu.judge_run import LEAST, Replicas, Run, measure_run
from benchmarks.gpu.measuring import show
from benchmarks.judge_throughput import Group, fresh_groups, pace
from benchmarks.results import Figure, write
from benchmarks.served_judge import judge_on, logits_judge_on, pocket_judge_config, serving
from rc_grpo.config import EditScoreConfig
from reward_service.vision_judge import VisionJudge
from reward_service.vllm_server import VllmServer

Way = tuple[str, dict[str, Any]]
WAYS: tuple[Way, ...] = (
    ("text", {}),
    ("text, words first", {"order": "words_first"}),
    ("logits", {"scoring": "logits", "reasoning_characters": None}),
)
"""Ways to ask, and what is configured for each."""

TEXT, LOGITS = "text", "logits"
LONGEST = 1024
"""Tokens of an answer, which random weights do not end."""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        groups: of each measurement for every 64 requests in flight.
        size: of a group.
        side: of an image in pixels.
        servers: that share the GPU.
        in_flight: requests at the same time, of each.
        quantizations: of the weights, servers of their own each.
        model: a key of `judge_of_full_size.MODELS`.
        arguments: more of its command line.
    """

    groups: int = 12
    size: int = 12
    side: int = 512
    servers: int = 2
    in_flight: tuple[int, ...] = (64, 128, 192)
    quantizations: tuple[str | None, ...] = (None, "fp8")
    model: str = "qwen2_5_vl_7b"
    arguments: tuple[str, ...] = ()


SMALL = Sizes(groups=2, size=2, side=128, in_flight=(4,), quantizations=(None,), servers=1)


@dataclass
class Measured:
    """All measurements, and by way and quantization how far scores go with their neighbours."""

    runs: list[Run] = field(default_factory=list)
    spread: dict[str, dict[str, float]] = field(default_factory=dict)

    def best(self, way: str) -> Run:
        """The fastest run of a way of asking, and of its variants."""
        return max((run for run in self.runs if run.way.startswith(way)), key=lambda run: run.images_per_second)


def config_of(sizes: Sizes, folder: Path, *, small: bool, quantization: str | None) -> EditScoreConfig:
    """Return the judge, as a user would configure one."""
    most = max(sizes.in_flight)
    logits = {"held": True}
    if small:
        pocket = pocket_judge_config().model_dump()
        pocket["sampling"]["max_tokens"] = 128
        pocket["client"]["request_deadline_s"] = 300
        # A machine that is busy with other things is not a server that hangs.
        pocket["server"]["probe_deadline_s"] = 120
        short = folder / "questions.yaml"
        short.write_text(yaml.safe_dump(_SHORT), encoding="utf-8")
        return EditScoreConfig.model_validate(pocket | {"logits": logits | {"prompts": short}, "scoring": "logits"})
    server = {
        "quantization": quantization,
        "max_num_seqs": most,
        "gpu_memory_utilization": 0.9 / sizes.servers,
        "arguments": [*judge_of_full_size.ARGUMENTS, *sizes.arguments],
        "environment": judge_of_full_size.ENVIRONMENT,
    }
    return EditScoreConfig.model_validate(
        {
            "kind": "editscore",
            "model": str(folder),
            "scoring": "logits",
            "logits": logits,
            "sampling": {"max_tokens": LONGEST},
            "groups_in_flight": most,
            "resources": {"num_gpus": 1 / sizes.servers},
            "client": {"request_deadline_s": 300},
            "server": server,
        }
    )


def asked(config: EditScoreConfig, server: VllmServer, changes: dict[str, Any], in_flight: int) -> VisionJudge:
    """Return a judge that asks a server in one of the ways; closing it would close the server."""
    text = (
        {"scoring": TEXT, "logits": {}, "reasoning_characters": judge_of_full_size.REASONING}
        if "scoring" not in changes
        else {}
    )
    client = config.client.model_dump() | {"concurrency": in_flight}
    chosen = EditScoreConfig.model_validate(config.model_dump() | text | changes | {"client": client})
    return logits_judge_on(server, chosen) if chosen.scoring == LOGITS else judge_on(server, chosen)


async def spread(judge: VisionJudge, group: Group, crowd: Iterable[Group]) -> dict[str, float]:
    """Return how far the rewards of a group go when others are scored beside it: nothing is sampled in either case."""
    task, images = group
    alone = [(await judge.score(task, image[None]))[0].reward for image in images]
    again = [(await judge.score(task, image[None]))[0].reward for image in images]
    beside, *_ = await asyncio.gather(judge.score(task, images), *(judge.score(*other) for other in crowd))
    moved = np.abs(np.array([verdict.reward for verdict in beside]) - alone)
    return {
        "largest": float(moved.max()),
        "mean": float(moved.mean()),
        "moved": float((moved > 0).mean()),
        "largest_alone_again": float(np.abs(np.array(again) - alone).max()),
        "deviation_of_rewards": float(np.std(alone)),
    }


async def measure(sizes: Sizes, *, small: bool) -> Measured:
    """Measure every way of asking on a server of each quantization."""
    found = Measured()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if not small:
            judge_of_full_size.write(folder, sizes.model)
        for quantization in sizes.quantizations:
            config = config_of(sizes, folder, small=small, quantization=quantization)
            async with AsyncExitStack() as open_servers:
                servers = []
                for _ in range(sizes.servers):
                    started = time.perf_counter()
                    # One after the other: each looks how much of the GPU's memory is free.
                    servers.append(await open_servers.enter_async_context(serving(config)))
                    print(f"serves after {time.perf_counter() - started:.0f} s", flush=True)
                await _on(servers, config, sizes, quantization, found)
    return found


async def _on(
    servers: Sequence[VllmServer], config: EditScoreConfig, sizes: Sizes, quantization: str | None, found: Measured
) -> None:
    seed, share = 1, len(servers)

    def judges(changes: dict[str, Any], in_flight: int) -> Replicas:
        return Replicas(asked(config, server, changes, in_flight) for server in servers)

    for way, changes in WAYS:
        warm = judges(changes, max(sizes.in_flight))
        await pace(warm, list(fresh_groups(2 * share, 900 + seed, size=sizes.size, side=sizes.side)), 2 * share, LEAST)
        for in_flight in sizes.in_flight:
            seed += 1
            count = share * max(sizes.groups, sizes.groups * in_flight // 64)
            groups = list(fresh_groups(count, 1000 + seed, size=sizes.size, side=sizes.side))
            run = Run(way, quantization, share, in_flight, 0.0, 0.0, 0.0, 0.0)
            await measure_run(servers, judges(changes, in_flight), groups, run)
            found.runs.append(run)
            print(asdict(run), flush=True)
        if way in (TEXT, LOGITS):
            sampling = config.sampling.model_dump() | {"temperature": 0.0}
            judge = asked(config, servers[0], changes | {"sampling": sampling}, max(sizes.in_flight))
            group, *crowd = fresh_groups(sizes.groups, 5000, size=sizes.size, side=sizes.side)
            name = f"{way}, {quantization or config.server.dtype}"
            found.spread[name] = await spread(judge, group, crowd)
            print(name, found.spread[name], flush=True)


_SHORT = {
    "sc": {"text": "Instruction: {instruction}", "marks": {"success": "Score the success.", "over_editing": "Score."}},
    "pq": {"text": "Score the image.", "marks": {"naturalness": "Score.", "artifacts": "Score the artifacts."}},
}
"""Few words, as all but its own fall apart into bytes for the pocket judge."""


def figures(found: Measured) -> dict[str, Figure]:
    """Return what the results file is quoted by."""
    text, logits = found.best(TEXT), found.best(LOGITS)

    def note(run: Run) -> str:
        weights = run.quantization or "bfloat16"
        return f"{run.way}, {weights} weights, {run.servers} servers a GPU, {run.in_flight} requests in flight each"

    def largest(way: str) -> float:
        return max(spread["largest"] for name, spread in found.spread.items() if name.startswith(way))

    return {
        "images_per_second": Figure(text.images_per_second, "images/s", "at least 16", note(text)),
        "logit_mode_images_per_second": Figure(logits.images_per_second, "images/s", "at least 30", note(logits)),
        "prefix_hit_share": Figure(text.prefix_hit_share, "fraction of prompt tokens", None, note(text)),
        "logit_mode_prefix_hit_share": Figure(logits.prefix_hit_share, "fraction of prompt tokens", None, note(logits)),
        "image_hit_share": Figure(text.image_hit_share, "fraction of images sent", None, note(text)),
        "answer_tokens": Figure(text.answer_tokens, "tokens", None, "mean of an answer in text"),
        "spread_by_neighbours": Figure(
            largest(LOGITS),
            "reward, 0..1",
            None,
            "by logits, random weights: largest change of a reward when others are scored beside it",
        ),
        "text_spread_by_neighbours": Figure(
            largest(TEXT),
            "reward, 0..1",
            None,
            "at temperature 0, random weights, whose text another rounding turns to another",
        ),
    }


def main() -> None:
    """Measure; write where a GPU was measured."""
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the pocket judge on the CPU; writes nothing")
    parser.add_argument("--model", choices=judge_of_full_size.MODELS, help="whose size it has")
    parser.add_argument("--servers", type=int, help="that share the GPU")
    parser.add_argument("--in-flight", type=int, nargs="+", help="requests at the same time, of each server")
    parser.add_argument("--groups", type=int, help="of each measurement for every 64 requests in flight")
    parser.add_argument("--weights", choices=["bfloat16", "fp8"], nargs="+", help="a server each")
    parser.add_argument(
        "--server", default="", help="more of the server's command line, such as '--api-server-count 4'"
    )
    options = parser.parse_args()
    chosen = {
        "in_flight": tuple(options.in_flight) if options.in_flight else None,
        "groups": options.groups,
        "servers": options.servers,
        "model": options.model,
        "arguments": tuple(shlex.split(options.server)),
        "quantizations": tuple(None if name == "bfloat16" else name for name in options.weights or ()) or None,
    }
    sizes = Sizes(**(asdict(SMALL if options.small else Sizes()) | {k: v for k, v in chosen.items() if v is not None}))
    if not options.small and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; --small tries the script with the pocket judge on the CPU")
    found = asyncio.run(measure(sizes, small=options.small))
    columns = ("way", "weights", "servers", "in flight", "images/s", "prefix hits", "image hits", "answer tokens")
    show("images judged a second", columns, [tuple(asdict(run).values())[:8] for run in found.runs])
    named = figures(found)
    show("figures", ("what", "value", "note"), [(name, fig.value, fig.note) for name, fig in named.items()])
    if options.small:
        print("measured without a GPU: nothing is written")
        return
    name = "gpu_judge" if sizes.model == Sizes.model else f"gpu_judge_{sizes.model}"
    print(write(name, named, asdict(found), module="benchmarks.gpu.judge"))


if __name__ == "__main__":
    main()
