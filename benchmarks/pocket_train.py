"""The pocket training as a newcomer runs it, and what an update costs sequential and overlapped.

One full run of the packaged config gives the held-out gain and the minutes. Then short runs of the same config,
synchronous and with ``max_staleness: 1`` in turn, give seconds an update; the machine's CPU use beside them says what
bounds it.
"""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

from benchmarks import results
from benchmarks.results import Figure

UPDATES = 12
WARM_UP = 2
REPEATS = 2


class CpuUse:
    """Samples the machine's CPU use while a run is under way."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "CpuUse":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def during(self, seconds: float) -> float:
        """Return the mean use, 0..1, of the last ``seconds``."""
        recent = self._samples[-max(1, int(seconds)) :]
        return statistics.fmean(recent) / 100

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._samples.append(psutil.cpu_percent(interval=1.0))


def train(root: Path, name: str, *overrides: str) -> Path:
    """Run ``rc-grpo train pocket`` in a process of its own and return the run's folder."""
    options = [f"name={name}", f"output.root={root}", *overrides]
    command = [sys.executable, "-m", "deploy.cli", "train", "pocket"]
    subprocess.run([*command, *(part for option in options for part in ("--set", option))], check=True)
    return root / name


def updates_of(folder: Path) -> list[dict[str, Any]]:
    """Return the run's update records."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "update"]


def pace(root: Path, name: str, staleness: int) -> dict[str, float]:
    """Run a short training and return seconds an update and where they went."""
    with CpuUse() as cpu:
        folder = train(
            root, name, f"loop.max_staleness={staleness}", f"loop.updates={UPDATES}", "evaluation.tasks=0"
        )  # fmt: skip
        records = updates_of(folder)
        whole = sum(record["seconds/update_total"] for record in records)
        used = cpu.during(whole)
    steady = records[WARM_UP:]
    return {
        "seconds_per_update": statistics.median(record["seconds/update_total"] for record in steady),
        "learner_seconds": statistics.median(record.get("update/seconds", 0.0) for record in steady),
        "waiting_for_groups_seconds": statistics.median(record["seconds/waiting_for_groups"] for record in steady),
        "cpu_use": used,
        "groups_skipped_share": statistics.fmean(record["groups_skipped/share"] for record in steady),
    }


def main() -> None:
    """Measure and write ``results/pocket_train.json``."""
    root = Path(tempfile.mkdtemp(prefix="rc-grpo-benchmark-"))
    try:
        folder = train(root, "full")
        summary = json.loads((folder / "summary.json").read_text())
        paces: dict[str, list[dict[str, float]]] = {"sequential": [], "overlapped": []}
        for repeat in range(REPEATS):
            for mode, staleness in (("sequential", 0), ("overlapped", 1)):
                paces[mode].append(pace(root, f"{mode}-{repeat}", staleness))
    finally:
        shutil.rmtree(root)
    seconds = {mode: min(run["seconds_per_update"] for run in runs) for mode, runs in paces.items()}
    heldout = summary["heldout"]
    note = f"median of {UPDATES - WARM_UP} updates, the better of {REPEATS} runs taken in turn"
    path = results.write(
        "pocket_train",
        {
            "heldout_gain_in_standard_errors": Figure(
                heldout["gain_in_standard_errors"], "standard errors", "more than 3", f"{heldout['tasks']} paired tasks"
            ),
            "heldout_before": Figure(heldout["before"], "mean task reward, 0..1"),
            "heldout_after": Figure(heldout["after"], "mean task reward, 0..1"),
            "train_minutes": Figure(
                summary["training_minutes"], "minutes", "at most 10", "both held-out evaluations included"
            ),
            "seconds_per_update_sequential": Figure(seconds["sequential"], "seconds", None, note),
            "seconds_per_update_overlapped": Figure(seconds["overlapped"], "seconds", None, note),
        },
        {"heldout": heldout, "updates": summary["updates"], "paces": paces},
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
