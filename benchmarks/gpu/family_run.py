"""Two updates of the whole system, one worker rolls out and one rank learns, and its LoRA in the stock pipeline.

Each has a GPU of its own where there are two; of one each takes half.
The judge is a server that gives every image marks by its digest: edits of random weights are noise, which no judge of
meaning can tell apart.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import Figure
from deploy.configs import load_config
from rc_grpo.editor.loading import load_pipeline

RUN = (
    "name=run",
    "rollout.workers=1",
    "learner.ranks=1",
    "loop={updates: 2, groups_per_update: 1}",
    "cluster={address: null, dashboard: false}",
)
JUDGE = "digest"


class DigestJudge(BaseHTTPRequestHandler):
    """Answers in EditScore's contract, by what the last image's bytes come to."""

    def do_GET(self) -> None:
        """List the one model."""
        self._send({"object": "list", "data": [{"id": JUDGE, "object": "model"}]})

    def do_POST(self) -> None:
        """Answer a chat completion."""
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        shown = [part for message in request["messages"] for part in message["content"] if isinstance(part, dict)]
        image = [part["image_url"]["url"] for part in shown if part["type"] == "image_url"][-1]
        marks = [byte % 26 for byte in hashlib.sha256(image.encode()).digest()[:2]]
        message = {"role": "assistant", "content": json.dumps({"reasoning": "a digest", "score": marks})}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send({"object": "chat.completion", "choices": [choice] * request.get("n", 1)})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def _send(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def judged() -> Iterator[str]:
    """Serve the judge inside the context; its part of the configuration."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), DigestJudge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    kind = f"kind: editscore, model: {JUDGE}, family: qwen2_5_vl, urls: ['{url}'], resources: {{num_cpus: 1}}"
    try:
        yield f"reward.judges={{{JUDGE}: {{{kind}}}}}"
    finally:
        server.shutdown()


def measure(config: str, overrides: Sequence[str], folder: Path) -> tuple[dict[str, Figure], Any]:
    """Train and load.

    Args:
        config: a packaged configuration's name.
        overrides: to it.
        folder: for the run.

    Raises:
        RuntimeError: the run failed.
    """
    gpus = min(2, torch.cuda.device_count())
    shares = [f"{part}.resources.num_gpus={gpus / 2:g}" for part in ("rollout", "learner")]
    started = time.perf_counter()
    with judged() as judge:
        every = (*overrides, *RUN, *shares, judge, f"output.root={folder}")
        options = [part for override in every for part in ("--set", override)]
        command = [sys.executable, "-m", "deploy.train", "--config", config, *options]
        ended = subprocess.run(command, check=False, env=os.environ | {"RC_GRPO_JUDGE_KEY": "any"})
    seconds = time.perf_counter() - started
    if ended.returncode:
        raise RuntimeError(f"the run under {folder} ended with exit code {ended.returncode}")
    run = folder / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    updates = [line for line in lines if line["event"] == "update"]
    ratios = [line["update/first_step/max_abs_log_ratio"] for line in updates]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    modules = summary["final_version"]["modules"]
    return {
        "whole_updates": Figure(
            len(updates), "updates", "2", f"{seconds:.0f} s from the command to its end; GPUs: {gpus}"
        ),
        "whole_max_abs_log_ratio": Figure(max(ratios), "log ratio", "0", "of the first step, on policy"),
        "whole_lora_modules_missing": Figure(
            modules - bound(config, overrides, run / "lora"), "modules", "0", f"of {modules}, in the stock pipeline"
        ),
    }, {"updates": updates, "summary": summary}


def bound(config: str, overrides: Sequence[str], lora: Path) -> int:
    """Return how many modules of the stock pipeline's transformer have a trained LoRA once it has loaded a folder."""
    pipeline = load_pipeline(load_config(config, tuple(overrides)).editor)
    pipeline.load_lora_weights(lora)
    named = dict(pipeline.transformer.named_parameters())
    return sum(".lora_B." in name for name in named)
