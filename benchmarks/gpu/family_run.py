"""Two updates of the whole system on two GPUs, one rolls out and one learns, and its LoRA in the stock pipeline."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Figure
from deploy.configs import load_config
from rc_grpo.editor.loading import load_pipeline

RUN = (
    "name=run",
    "rollout.workers=1",
    "learner.ranks=1",
    "loop={updates: 2, groups_per_update: 2}",
    "cluster={address: null, dashboard: false}",
)


def measure(config: str, overrides: Sequence[str], folder: Path) -> tuple[dict[str, Figure], Any]:
    """Train and load.

    Args:
        config: a packaged configuration's name.
        overrides: to it.
        folder: for the run.

    Raises:
        RuntimeError: the run failed.
    """
    every = (*overrides, *RUN, f"output.root={folder}")
    options = [part for override in every for part in ("--set", override)]
    started = time.perf_counter()
    ended = subprocess.run([sys.executable, "-m", "deploy.train", "--config", config, *options], check=False)
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
        "whole_updates": Figure(len(updates), "updates", "2", f"{seconds:.0f} s from the command to its end"),
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
