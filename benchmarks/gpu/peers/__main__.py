"""Rivals' own code and ours on one card: seconds a candidate, seconds a trained step, peak memory.

    python -m benchmarks.gpu.peers.sources          # once, with a network: their code, into build/peers
    python -m benchmarks.gpu.peers [--sides 512 1024] [--systems ours flow_grpo ...] [--peers build/peers]
    python -m benchmarks.gpu.peers --small          # the pocket editor on the CPU, to try it; writes nothing

FLUX.1 Kontext's architecture, random weights, bfloat16, T = 8, groups of 12, 512 text tokens, embedded guidance, LoRA
of rank 64 on the same projections. Each system at each size runs in a process of its own, at most `--limit` seconds
with all its tries: in smaller batches where memory ends, otherwise started where it fails. What it measured, or why it
could not, lies in ``build/gpu_peers``, and what lies there of all goes to ``benchmarks/results/gpu_peers.json``.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import parts
from benchmarks.gpu.parts import Part
from benchmarks.gpu.peers import reckoning, sources
from benchmarks.gpu.peers.reckoning import COULD_NOT, FLOAT8, OURS, STOCK
from benchmarks.gpu.peers.setting import CANDIDATE, STEP, Setting
from benchmarks.results import write

MODULE, OUT = "benchmarks.gpu.peers", Path("build/gpu_peers")
OUT_OF_MEMORY = "out_of_memory"
ANCHORS = 4
"""Of a group, that ours learns from."""


@dataclass(frozen=True)
class System:
    """One that is measured.

    Attributes:
        run: measures it in this process.
        batches: to try at 512 and at 1024, the largest first.
        starts: ways to start it, the first its own: ``launch`` and ``cudnn`` of `Setting`.
    """

    run: Callable[[Setting, Path], Part]
    batches: tuple[tuple[int, ...], tuple[int, ...]]
    starts: tuple[tuple[str, bool], ...] = (("plain", True),)

    def tries(self, setting: Setting) -> Iterator[list[Setting]]:
        """Yield settings, one way to start after the other, each in all batches."""
        batches = (2, 1) if setting.small else self.batches[setting.side > 512]
        for launch, cudnn in self.starts:
            yield [replace(setting, batch=batch, launch=launch, cudnn=cudnn) for batch in batches]


def _ours(name: str) -> Callable[[Setting, Path], Part]:
    def run(setting: Setting, _peers: Path) -> Part:
        from benchmarks.gpu.peers import ours

        return getattr(ours, name)(setting)

    return run


def _flow_grpo(setting: Setting, peers: Path) -> Part:
    from benchmarks.gpu.peers import flow_grpo_run

    return flow_grpo_run.run(setting, sources.folder_of(sources.FLOW_GRPO, peers))


def _flow_factory(setting: Setting, peers: Path) -> Part:
    from benchmarks.gpu.peers import flow_factory_run

    return flow_factory_run.run(setting, sources.folder_of(sources.FLOW_FACTORY, peers))


LEARNING = ((6, 4, 2, 1), (1,))
CANDIDATES = ((6, 4, 3, 2, 1), (2, 1))
SYSTEMS = {
    OURS: System(_ours("ours"), LEARNING),
    FLOAT8: System(_ours("ours_float8"), LEARNING),
    STOCK: System(_ours("stock"), LEARNING),
    # Its own way is DeepSpeed's ZeRO-2, on one process as on eight.
    "flow_grpo": System(_flow_grpo, CANDIDATES, (("deepspeed", True), ("deepspeed", False), ("plain", False))),
    "flow_factory": System(_flow_factory, CANDIDATES, (("plain", True), ("plain", False))),
}


def main() -> None:
    """Run the systems, one process each, and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--sides", nargs="+", type=int, choices=(512, 1024), default=[512])
    parser.add_argument("--peers", type=Path, default=sources.PEERS, help="the folder with the rivals' code")
    parser.add_argument("--limit", type=float, default=200.0, help="seconds for a system at a size")
    parser.add_argument("--small", action="store_true", help="the pocket editor on the CPU; writes nothing")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = OUT / "small" if options.small else OUT
    if options.here is not None:
        (system,) = options.systems
        setting = Setting(**json.loads(options.here))
        here(system, setting, options.peers, _path(out, system, setting.side))
        return
    sides = [128] if options.small else sorted(options.sides)
    failed = []
    for side in sides:
        for system in options.systems:
            if not attempt(system, Setting(side, options.small), options, out):
                failed.append(f"{system} at {side}")
    every = [(system, side) for side in ([128] if options.small else (512, 1024)) for system in SYSTEMS]
    left = parts.gather({f"{system}.{side}": _path(out, system, side) for system, side in every})
    found = {(system, side): left[f"{system}.{side}"] for system, side in every if f"{system}.{side}" in left}
    named = reckoning.figures(found, sorted({side for _, side in every}))
    for name, figure in named.items():
        print(f"{name}: {figure.value:.4g} {figure.unit} (goal: {figure.goal}); {figure.note or ''}")
    if not options.small:
        print(write("gpu_peers", named, detail_of(found), module=MODULE))
    parts.end(failed)


def attempt(system: str, setting: Setting, options: argparse.Namespace, out: Path) -> bool:
    """Measure a system at a size in processes of their own until one succeeds; return whether one did."""
    path = _path(out, system, setting.side)
    path.unlink(missing_ok=True)
    ends = time.monotonic() + options.limit
    tries: list[dict[str, Any]] = []
    for batches in SYSTEMS[system].tries(setting):
        for chosen in batches:
            given = ["--systems", system, "--peers", str(options.peers), *["--small"] * chosen.small]
            left = ends - time.monotonic()
            if left <= 0:
                break
            code = parts.apart(MODULE, *given, "--here", json.dumps(vars(chosen)), limit=left)
            figures, detail = parts.gather({system: path}).get(system, ({}, {}))
            if figures and code == 0:
                parts.leave(path, (figures, detail | {"tried_before": tries}))
                return True
            why = detail.get(COULD_NOT) or f"ended with exit code {code}, {options.limit:.0f} s at most"
            tries.append({"batch": chosen.batch, "launch": chosen.launch, "cudnn": chosen.cudnn, "why": why})
            path.unlink(missing_ok=True)
            if not detail.get(OUT_OF_MEMORY):
                break
        else:
            # Memory ended in every batch: another start takes no less.
            break
    parts.leave(path, ({}, {COULD_NOT: tries[0]["why"], "tried_before": tries}))
    return False


def here(system: str, setting: Setting, peers: Path, path: Path) -> None:
    """Measure a system in this process; leave what was measured, or why it could not be."""
    if not setting.cudnn:
        torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        part = SYSTEMS[system].run(setting, peers)
    except Exception as error:  # noqa: BLE001 - whatever a rival raises is the reason that is written down
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        is_memory = isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
        parts.leave(path, ({}, {COULD_NOT: said, OUT_OF_MEMORY: is_memory}))
        sys.exit(1)
    parts.leave(path, part)


def detail_of(found: reckoning.Found) -> dict[str, Any]:
    """Return what else was seen of all systems, where the rivals' code is from, and what others publish."""
    detail: dict[str, Any] = {}
    for (system, side), (_, seen) in found.items():
        detail.setdefault(system, {})[str(side)] = seen
    detail["sources"] = {own.name: f"github.com/{own.repository} at {own.commit}" for own in sources.SOURCES}
    detail["published"] = [published.said for published in reckoning.PUBLISHED]
    for (system, side), (figures, _) in found.items():
        if system == OURS and {CANDIDATE, STEP} <= figures.keys():
            setting = Setting(side)
            seconds = (figures[CANDIDATE].value, figures[STEP].value)
            each = reckoning.images_per_gpu_second(*seconds, setting.steps, ANCHORS, setting.group)
            detail[system][str(side)] |= {
                "images_per_gpu_second": each,
                "images_per_peak_pflop": each / reckoning.HOPPER * 1e3,
            }
    return detail


def _path(out: Path, system: str, side: int) -> Path:
    return out / f"{system}.{side}.json"


if __name__ == "__main__":
    main()
