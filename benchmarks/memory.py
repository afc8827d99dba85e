"""Host memory over 500 updates of a run that is warm: every process, sampled at each update; none may grow.

Warm is late: caches, heaps and Ray's own tables fill for some 800 updates, and then stop.

What is sampled is anonymous resident memory (what a process has for itself; shared pages of the object store are not in
it) and, for the object store, what Ray says that it holds.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import ray

from benchmarks import results
from benchmarks.chaos import running
from benchmarks.results import Figure
from benchmarks.runs import finish
from benchmarks.saboteur import Saboteur

PLOT = Path(__file__).parents[1] / "docs" / "memory.png"
WATCHED = 500
"""The last updates of the run, over which the slope is taken."""


def resident(process: int) -> float:
    """Return the anonymous resident memory of a process in MB, from /proc."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def processes(saboteur: Saboteur) -> dict[str, int]:
    """Return the process of each part of the run."""
    status = saboteur.await_update(1)
    assert status is not None
    names = [name for workers in status["workers"].values() for name in workers] + ["learner-0"]
    return {"driver": status["driver"], **{name: saboteur.process_of(name) for name in names}}


def stored() -> float:
    """Return what the object store holds, in MB."""
    total, free = (amounts["object_store_memory"] for amounts in (ray.cluster_resources(), ray.available_resources()))
    return (total - free) / 2**20


def sample(folder: Path, updates: int) -> tuple[list[int], dict[str, list[float]]]:
    """Return the updates at which memory was read, and each process' memory in MB then."""
    at: list[int] = []
    memory: dict[str, list[float]] = {}
    with Saboteur(folder, seed=0) as saboteur:
        watched = processes(saboteur)
        while (status := saboteur.await_update(at[-1] + 1 if at else 1)) and status["update"] < updates:
            values = {name: resident(process) for name, process in watched.items()} | {"object store": stored()}
            at.append(status["update"])
            for name, value in values.items():
                memory.setdefault(name, []).append(value)
    return at, memory


def slope(at: list[int], values: list[float]) -> tuple[float, float]:
    """Return the least-squares slope in MB per 100 updates over those watched, and its standard error.

    Neighbouring samples are alike, so the error is that of Newey and West (1987, Bartlett weights).
    """
    keep = np.array(at) > at[-1] - WATCHED
    x, y = np.array(at)[keep] / 100, np.array(values)[keep]
    (gradient, offset), centred = np.polyfit(x, y, 1), x - x.mean()
    score = (y - gradient * x - offset) * centred
    lags = int(12 * (len(x) / 100) ** (2 / 9))
    variance = np.square(score).sum() + 2 * sum(
        (1 - lag / (lags + 1)) * (score[lag:] * score[:-lag]).sum() for lag in range(1, lags + 1)
    )
    return float(gradient), float(np.sqrt(variance) / np.square(centred).sum())


def draw(at: list[int], memory: dict[str, list[float]]) -> None:
    """Draw each process' memory over the updates."""
    figure, axes = plt.subplots(figsize=(9, 4.5), constrained_layout=True)
    for name, values in memory.items():
        gradient, error = slope(at, values)
        axes.plot(at, values, label=f"{name}: {gradient:+.2f} ± {error:.2f} MB per 100 updates")
    axes.axvline(at[-1] - WATCHED, color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="update", ylabel="resident memory, MB", ylim=(0, None), title="Memory of every process of a run")
    axes.legend(fontsize=8)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    """Measure, and write ``results/memory.json`` and ``docs/memory.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=1500)
    updates = parser.parse_args().updates
    root = Path(tempfile.mkdtemp(prefix="rc-grpo-memory-"))
    try:
        # So few tasks that the workers' cache of encoded tasks is full after some updates.
        size = (f"loop.updates={updates}", "loop.groups_per_update=3", "rollout.workers=1", "data.train.limit=60")
        shape = (*size, "output.checkpoint_every=50", "loop.max_staleness=1")
        with running(root, "memory", *shape) as (folder, process):
            at, memory = sample(folder, updates)
            finish(process, folder)
    finally:
        shutil.rmtree(root)
    report(at, memory)


def report(at: list[int], memory: dict[str, list[float]]) -> None:
    """Draw, and write ``results/memory.json``."""
    draw(at, memory)
    found = {name: slope(at, values) for name, values in memory.items()}
    figures = {
        f"slope_mb_per_100_updates_{name.replace(' ', '_').replace('-', '_')}": Figure(
            gradient,
            "MB per 100 updates",
            "less than two standard errors above 0",
            f"standard error {error:.2f}; {values[-1]:.0f} MB at the end",
        )
        for (name, (gradient, error)), values in zip(found.items(), memory.values(), strict=True)
    }
    worst = max(found, key=lambda name: found[name][0])
    figures["slope_mb_per_100_updates"] = Figure(
        found[worst][0],
        "MB per 100 updates",
        "less than two standard errors above 0",
        f"the largest, of {worst}, standard error {found[worst][1]:.2f}; the last {WATCHED} of {at[-1]} updates",
    )
    detail = {"update": at, "megabytes": memory, "cores": os.cpu_count()}
    print(results.write("memory", figures, detail).read_text()[:4000])


if __name__ == "__main__":
    main()
