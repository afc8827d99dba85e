"""CompBench's size in small examples: evaluated, killed in the middle of it, resumed, and nothing redone or lost.

``python -m benchmarks.evaluate_scale``: 2,465 pocket tasks in CompBench's layout, the pocket editor, and a tiny random
CLIP (the published one needs a network). The evaluation is killed with kill -9 twice, once among the edits and once
among the measures, and then runs to its end. An edit or a measure that a killed run had finished must be the very same
file and line at the end, and every sample must be there once.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import results
from benchmarks.tiny_clip import save_tiny_clip
from rc_grpo.pocket.world import PocketWorld

EXAMPLES = 2465
"""CompBench's add, remove and replace together."""

MODEL = "scale"
POLL_S = 0.1
START_DEADLINE_S = 600.0


@dataclass(frozen=True)
class Place:
    """Where everything is, and how large it is."""

    folder: Path
    steps: int
    workers: int

    @property
    def edits(self) -> Path:
        return self.folder / "editing_results" / MODEL

    @property
    def journal(self) -> Path:
        return self.edits / "measures.jsonl"

    def finished_edits(self) -> dict[Path, int]:
        """Return the time of writing of each edit."""
        return {path: path.stat().st_mtime_ns for path in self.edits.rglob("[!.]*.png")}

    def finished_measures(self) -> list[bytes]:
        """Return the journal's whole lines."""
        return self.journal.read_bytes().split(b"\n")[:-1] if self.journal.exists() else []


def evaluate(place: Place) -> None:
    """What the processes that are killed run."""
    from deploy.configs import load_config
    from deploy.evaluating.compbench import run_compbench
    from rc_grpo.evaluation.compbench.measuring import MeasureSettings

    config = load_config(
        "pocket", [f"name={MODEL}", f"evaluation.steps={place.steps}", f"rollout.workers={place.workers}"]
    )
    settings = MeasureSettings(clip=str(place.folder / "clip"))
    run_compbench(config, place.folder, None, None, Console(), model=MODEL, settings=settings)


def start(place: Place) -> "subprocess.Popen[bytes]":
    size = ["--folder", str(place.folder), "--steps", str(place.steps), "--workers", str(place.workers)]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.evaluate_scale", "--evaluate", *size])


def run_until(place: Place, reached: Callable[[], bool], deadline_s: float) -> float:
    """Run the evaluation, kill -9 it when something is reached, and return the seconds it ran."""
    began = time.monotonic()
    process = start(place)
    try:
        while process.poll() is None:
            if reached():
                process.send_signal(signal.SIGKILL)
                process.wait()
                return time.monotonic() - began
            if time.monotonic() - began > deadline_s:
                raise TimeoutError(f"the evaluation did not get as far as it was to be killed at in {deadline_s:g} s")
            time.sleep(POLL_S)
    finally:
        process.kill()
    raise RuntimeError(f"the evaluation ended by itself (exit {process.returncode}) before it was to be killed")


def run_to_the_end(place: Place) -> float:
    began = time.monotonic()
    if code := start(place).wait():
        raise RuntimeError(f"the evaluation failed (exit {code})")
    return time.monotonic() - began


def check(place: Place, examples: int, edits: dict[Path, int], measures: list[bytes]) -> dict[str, Any]:
    """Compare what is there at the end with what the killed runs had finished."""
    now, lines = place.finished_edits(), place.finished_measures()
    times = Counter(json.loads(line)["task_id"] for line in lines)
    summary = json.loads((place.edits / "summary.json").read_text())
    return {
        "edits": len(now),
        "edits_redone": sum(now.get(path) != when for path, when in edits.items()),
        "measured": summary["overall"]["measured"],
        "measures_redone": sum(count - 1 for count in times.values()) + (lines[: len(measures)] != measures),
        "lost": examples - len(times) + len(summary["missing"]) + len(summary["failed"]),
        "overall": summary["overall"],
        "left_out": summary["measured_with"]["left_out"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", type=Path, help="kept afterwards; else a temporary one")
    parser.add_argument("--deadline", type=float, default=4 * 3600.0, help="seconds for each of the runs")
    parser.add_argument("--no-write", action="store_true", help="print the figures, write no result")
    parser.add_argument("--evaluate", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.evaluate:
        evaluate(Place(arguments.folder, arguments.steps, arguments.workers))
        return
    with tempfile.TemporaryDirectory() as temporary:
        place = Place(arguments.folder or Path(temporary), arguments.steps, arguments.workers)
        measure(place, arguments.examples, arguments.deadline, write=not arguments.no_write)


def measure(place: Place, examples: int, deadline_s: float, *, write: bool) -> None:
    from rc_grpo.evaluation.compbench.layout import write_benchmark

    write_benchmark(place.folder, PocketWorld("heldout", examples))
    save_tiny_clip(place.folder / "clip")
    seconds = [run_until(place, lambda: len(place.finished_edits()) >= examples // 3, deadline_s)]
    edits = place.finished_edits()
    seconds.append(run_until(place, lambda: len(place.finished_measures()) >= examples // 3, deadline_s))
    edits_at_second = place.finished_edits()
    measures = place.finished_measures()
    seconds.append(run_to_the_end(place))
    redone_between = sum(edits_at_second.get(path) != when for path, when in edits.items())
    outcome = check(place, examples, edits_at_second, measures)
    outcome["edits_redone"] += redone_between
    if outcome["edits_redone"] or outcome["measures_redone"] or outcome["lost"] or outcome["edits"] != examples:
        raise AssertionError(f"samples were redone or lost: {outcome}")
    detail = outcome | {
        "examples": examples,
        "steps": place.steps,
        "workers": place.workers,
        "killed_after_edits": len(edits),
        "killed_after_measures": len(measures),
        "seconds_of_runs": seconds,
    }
    figure = results.Figure(
        1000 * sum(seconds) / examples,
        "s",
        note="three runs together, two killed with kill -9; each start of Ray and of the actors counts. 128-pixel "
        f"sources, pocket editor, {place.steps} steps, measured at 512x512 with a tiny random CLIP",
    )
    done = results.Figure(outcome["edits_redone"] + outcome["measures_redone"], "samples", goal="0")
    lost = results.Figure(outcome["lost"], "samples", goal="0")
    print(json.dumps(detail, indent=2))
    print(f"seconds_per_1000_examples: {figure.value:.0f}")
    if write:
        figures = {"seconds_per_1000_examples": figure, "samples_redone": done, "samples_lost": lost}
        print(results.write("evaluate_scale", figures, detail))


if __name__ == "__main__":
    main()
