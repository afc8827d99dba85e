"""``make train`` as a series that is kept: a short run whose figures stand in the repository.

The run is that of ``make train`` cut short: the packaged pocket config with its two ranks and two rollout workers. On
the kind of processor and with the versions of the recording its figures are the recorded ones bit for bit. Elsewhere
they agree to `RELATIVE`, or to `MARGIN` times what another set of kernels moved them by, where that is more: Adam
divides a gradient by its own size, so that rounding is soon seen in small differences of large numbers. Record it anew,
after a change that is meant to move numbers:

    make series
"""

import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tests.integration.conftest import Finished, ready_python, running_cluster, train_short

RECORDED = Path(__file__).with_name("series.json")
RELATIVE = 1e-5
"""How far another processor may be from a recorded figure."""

MARGIN = 16.0
OTHER_KERNELS = {"ATEN_CPU_CAPABILITY": "default"}
"""PyTorch's kernels without vector instructions: the same sums in another order."""

OVERRIDES = (
    "loop.updates=3",
    "loop.groups_per_update=4",
    "rollout.steps=4",
    "rollout.workers=2",
    "learner.ranks=2",
    "learner.steps_per_rollout=2",
    "objective.beta=0.01",
    "evaluation.tasks=4",
)
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "deepspeed", "numpy", "pillow")
_TIME = re.compile(r"seconds|pool/|latency|ledger/")


def machine() -> dict[str, str]:
    """Return what bits depend on: the kind of processor, and the versions of what computes."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    told = {key: re.search(rf"^{key}\s*: (.*)$", info, re.MULTILINE) for key in ("model name", "cpu family", "model")}
    processor = " ".join(found[1] for found in told.values() if found) or platform.processor()
    kind = f"{processor} {torch.backends.cpu.get_cpu_capability()}"
    return {"processor": kind} | {library: metadata.version(library) for library in LIBRARIES}


def train_the_series(root: Path, seconds: float = 240) -> Finished:
    """Make the run, in so many seconds at most."""
    return train_short(root, "series", *OVERRIDES, seconds=seconds)


def figures_of(run: Finished) -> dict[str, Any]:
    """Return everything that a run computed and no clock had a hand in, by update."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return {
        f"{line['event']} {line['update']}": {name: value for name, value in line.items() if not _TIME.search(name)}
        for line in lines
    } | {"end": {"digest": run.digest, "exported": run.summary["exported_digest"]}}


def differences(recorded: Mapping[str, Any], found: Mapping[str, Any], *, to_the_bit: bool) -> Iterator[str]:
    """Yield in words in what a series differs from what is recorded; elsewhere digests are not compared.

    Args:
        recorded: its ``figures``, and how far each was moved by `OTHER_KERNELS`, its ``moved``.
        found: figures.
        to_the_bit: the machine is of the recording's kind.
    """
    figures, moved = recorded["figures"], recorded["moved"]
    if figures.keys() != found.keys():
        yield f"entries {sorted(figures)}, now {sorted(found)}"
    for entry in figures.keys() & found.keys():
        was, now = figures[entry], found[entry]
        if was.keys() != now.keys():
            yield f"{entry}: figures {sorted(was.keys() ^ now.keys())} on one side alone"
        for name in sorted(was.keys() & now.keys()):
            allowed = 0.0 if to_the_bit else MARGIN * moved[entry].get(name, 0.0)
            if was[name] != now[name] and (to_the_bit or not _near(was[name], now[name], allowed)):
                yield f"{entry}, {name}: {was[name]!r}, now {now[name]!r}"


def _near(was: Any, now: Any, allowed: float) -> bool:
    if isinstance(was, str) and isinstance(now, str):
        return True
    return (
        isinstance(was, float) and isinstance(now, float) and math.isclose(was, now, rel_tol=RELATIVE, abs_tol=allowed)
    )


def _moved(figures: Mapping[str, Any], elsewhere: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    return {
        entry: {
            name: abs(value - elsewhere[entry][name])
            for name, value in named.items()
            if isinstance(value, float) and value != elsewhere[entry][name]
        }
        for entry, named in figures.items()
    }


def _figures_in_a_new_process(**environment: str) -> dict[str, Any]:
    """Make the run where the environment is in force from the first import on."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", __spec__.name, folder]
        subprocess.run(command, check=True, env=os.environ | environment, timeout=1000)
        figures: dict[str, Any] = json.loads((Path(folder) / "figures.json").read_text())
    return figures


def main() -> None:
    """Record the series anew; given a folder, make the run there and leave its figures."""
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        with ready_python() as python, running_cluster(python):
            (folder / "figures.json").write_text(json.dumps(figures_of(train_the_series(folder, 900))))
        return
    figures = _figures_in_a_new_process()
    moved = _moved(figures, _figures_in_a_new_process(**OTHER_KERNELS))
    recorded = {"machine": machine(), "figures": figures, "moved": moved}
    RECORDED.write_text(json.dumps(recorded, indent=1) + "\n")
    print(f"{RECORDED}: {sum(map(len, figures.values()))} figures of {len(figures)} entries")


if __name__ == "__main__":
    main()
