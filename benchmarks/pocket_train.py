"""The pocket training as a newcomer runs it, and what an update costs sequential and overlapped.

One full run of the packaged config gives the held-out gain, the minutes, and the picture of edits before and after.
Short runs give seconds an update, synchronous and with ``max_staleness: 1``: of the packaged config, whose rollout
workers or ranks each fill both cores, and with one worker and one rank, where either alone leaves a core idle. CPU use
beside them says what bounds each.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.runs import records_of, summary_of, train

UPDATES = 9
WARM_UP = 2
PICTURE = Path(__file__).parents[1] / "docs" / "pocket" / "before_after.png"
ONE_CORE_EACH = ("rollout.workers=1", "learner.ranks=1")


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


def pace(root: Path, name: str, *overrides: str) -> dict[str, float]:
    """Run a short training and return seconds an update and where they went."""
    with CpuUse() as cpu:
        folder = train("pocket", root, name, *overrides, f"loop.updates={UPDATES}", "evaluation.tasks=0")
        records = records_of(folder)
        used = cpu.during(sum(record["seconds/update_total"] for record in records))
    steady = records[WARM_UP:]
    return {
        "seconds_per_update": statistics.median(record["seconds/update_total"] for record in steady),
        "learner_seconds": statistics.median(record["update/seconds"] for record in steady),
        "waiting_for_groups_seconds": statistics.median(record["seconds/waiting_for_groups"] for record in steady),
        "cpu_use": used,
    }


def draw(folder: Path) -> None:
    """Draw held-out edits before and after a run."""
    command = [sys.executable, "-m", "deploy.cli", "evaluate", "pocket", "--lora", str(folder / "lora")]
    subprocess.run([*command, "--sheet", str(PICTURE), "--set", f"output.root={folder.parent}"], check=True)


def main() -> None:
    """Measure and write ``results/pocket_train.json`` and ``docs/pocket/before_after.png``."""
    root = Path(tempfile.mkdtemp(prefix="rc-grpo-benchmark-"))
    try:
        folder = train("pocket", root, "trained")
        summary = summary_of(folder)
        draw(folder)
        paces = {
            f"{mode}{suffix}": pace(root, f"{mode}{suffix}", *pools, staleness)
            for suffix, pools in (("", ()), ("_one_core_each", ONE_CORE_EACH))
            for mode, staleness in (("sequential", "loop.max_staleness=0"), ("overlapped", "loop.max_staleness=1"))
        }
    finally:
        shutil.rmtree(root)
    heldout = summary["heldout"]
    median = f"median of {UPDATES - WARM_UP} updates"
    figures = {
        "heldout_gain": Figure(
            heldout["gain"], "mean task reward, 0..1", "at least 0.12", f"{heldout['tasks']} tasks, before and after"
        ),
        "heldout_gain_in_standard_errors": Figure(
            heldout["gain_in_standard_errors"], "standard errors", "more than 3", f"{heldout['tasks']} paired tasks"
        ),
        "heldout_before": Figure(heldout["before"], "mean task reward, 0..1"),
        "heldout_after": Figure(heldout["after"], "mean task reward, 0..1"),
        "train_minutes": Figure(
            summary["training_minutes"], "minutes", "at most 10", "both held-out evaluations included"
        ),
    }
    for mode, figure in paces.items():
        pools = "one rollout worker, one rank" if mode.endswith("one_core_each") else "the packaged config"
        figures[f"seconds_per_update_{mode}"] = Figure(
            figure["seconds_per_update"], "seconds", None, f"{median}; {pools}"
        )
        figures[f"cpu_use_{mode}"] = Figure(figure["cpu_use"], "share of all cores", None, pools)
    path = results.write("pocket_train", figures, {"heldout": heldout, "updates": summary["updates"], "paces": paces})
    print(path.read_text())


if __name__ == "__main__":
    main()
