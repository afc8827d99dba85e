"""What every editor people train must reach at full size with random weights: rollouts, updates, swaps, the doctor.

    python -m benchmarks.gpu.families [--families klein_4b ...] [--parts rollout ...]

Each part of each family runs in a process of its own, and leaves its figures under ``build/gpu_families``; what lies
there of all parts goes to ``benchmarks/results/gpu_families.json``.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import parts
from benchmarks.gpu.parts import Part
from benchmarks.results import Figure, write
from deploy.configs import load_config
from rc_grpo.config import EditorConfig, RunConfig

MODULE, OUT = "benchmarks.gpu.families", Path("build/gpu_families")
CONFIGS = {
    "klein_4b": ("flux2_klein_4b", "full-size-klein-4b"),
    "klein_9b": ("flux2_klein_4b", "full-size-klein-9b"),
    "qwen_image_edit": ("qwen_image_edit_2511", "full-size-qwen-image-edit"),
    "qwen_image_21": ("qwen_image_21", "full-size-qwen-image-21"),
}
"""A packaged configuration, and the architecture that stands for its model."""


def overrides_of(family: str) -> tuple[str, ...]:
    """Return what takes the place of published weights, of a data set and of a judge."""
    return (
        f"editor.model={CONFIGS[family][1]}",
        "data.train={format: pocket, split: train, limit: 64}",
        "data.heldout=null",
        "reward.judges={ground_truth: {kind: ground_truth, resources: {num_cpus: 1}}}",
        "evaluation.tasks=0",
        # Random weights come with a tokenizer that has a token a byte.
        "editor.text_tokens=800",
    )


def config_of(family: str) -> RunConfig:
    """Return a packaged configuration with `overrides_of` it."""
    return load_config(CONFIGS[family][0], overrides_of(family))


EDITORS: dict[str, EditorConfig] = {
    family: config_of(family).editor.model_copy(
        update={"text_tokens": 512, "source_resolution": None, "prefix": "none"}
    )
    for family in CONFIGS
}


def rollout(family: str) -> Part:
    """Measure forward passes, attention recorded and not, bfloat16 and float8, and what float8 does to a group."""
    from benchmarks.gpu import rollout as benchmark

    measured = benchmark.measure(EDITORS[family], (benchmark.LARGE,))
    measured.show()
    at = f"{benchmark.LARGE[0]}x{benchmark.LARGE[1]}"
    ranks = measured.deviations["fp8"]["rank_correlation"]
    return {
        "speedup_1024": Figure(measured.speedup(f"bf16, recorded {at}"), "x stock eager", "at least 1.30"),
        "matmul_share": Figure(measured.matmul_share(f"bf16, recorded {at}"), "fraction", "at least 0.80"),
        "acd_overhead": Figure(measured.acd_overhead(at), "fraction", "at most 0.01"),
        "fp8_speedup": Figure(measured.speedup(f"fp8, recorded {at}"), "x stock eager", "at least 1.6"),
        "fp8_rank_correlation": Figure(ranks, "Spearman", "at least 0.99", "a group of 12 under a fixed scorer"),
    }, measured.detail


def update(family: str) -> Part:
    """Measure an anchor's step, its gradient, and the memory of a chain of them."""
    from benchmarks.gpu import update as benchmark

    measured = benchmark.measure(EDITORS[family], ("store",), small=())
    measured.show()
    figures = measured.figures
    speedup = replace(figures.pop("speedup"), goal="at least 1.4")
    return {"update_speedup": speedup} | figures, measured.detail


def swap(family: str) -> Part:
    """Measure a new version, from bytes in Ray's object store to proven on a rollout worker."""
    import ray

    from benchmarks.gpu import swap as benchmark

    ray.init(address="local", include_dashboard=False, log_to_driver=True)
    measured = benchmark.measure(EDITORS[family])
    measured.show()
    recompiles = Figure(measured.recompiles, "graphs", "0")
    return {"swap_seconds": measured.median, "swap_recompiles": recompiles}, asdict(measured)


def doctor(family: str) -> Part:
    """Ask ``rc-grpo doctor``: does the training side make the stock pipeline's picture?"""
    from deploy.doctor.examination import examine

    found = []
    # Compiled apart, graphs with and without a recorder round differently: eager blocks show that it changes no bit.
    config = config_of(family)
    eager = config.model_copy(update={"editor": config.editor.model_copy(update={"compile": False})})
    for finding in examine(eager, steps=8):
        print(finding.state, finding.subject, finding.said, flush=True)
        found.append(finding)
    pictures = [finding.figures for finding in found if finding.subject.startswith("picture at")]
    faults = sum(finding.state == "fault" for finding in found)
    return {
        "doctor_max_abs": Figure(max(figures["max_abs"] for figures in pictures), "8-bit steps", "at most 1"),
        "doctor_equal_share": Figure(min(figures["equal_share"] for figures in pictures), "fraction"),
        "doctor_faults": Figure(faults, "findings", "0"),
    }, [asdict(finding) for finding in found]


def whole(family: str) -> Part:
    """Run the whole system for two updates, on two GPUs if there are, and load its LoRA into the stock pipeline."""
    from benchmarks.gpu import family_run

    return family_run.measure(CONFIGS[family][0], overrides_of(family), OUT / family)


PARTS: dict[str, Callable[[str], Part]] = {
    "rollout": rollout,
    "update": update,
    "swap": swap,
    "doctor": doctor,
    "whole": whole,
}


def main() -> None:
    """Run the parts, one process each, and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--families", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        (family,), (part,) = options.families, options.parts
        parts.leave(_path(family, part), PARTS[part](family))
        return
    failed = []
    for family in options.families:
        for part in options.parts:
            if parts.apart(MODULE, "--families", family, "--parts", part, "--here"):
                failed.append(f"{part} of {family}")
    _write()
    parts.end(failed)


def _path(family: str, part: str) -> Path:
    return OUT / f"{family}.{part}.json"


def _write() -> None:
    figures: dict[str, Figure] = {}
    detail: dict[str, dict[str, Any]] = {}
    for family in CONFIGS:
        for part, (found, seen) in parts.gather({part: _path(family, part) for part in PARTS}).items():
            figures |= {f"{family}_{name}": figure for name, figure in found.items()}
            detail.setdefault(family, {})[part] = seen
    write("gpu_families", figures, detail, module=MODULE)


if __name__ == "__main__":
    main()
