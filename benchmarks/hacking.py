"""A policy that learns to please its judge: how long until it is seen, and what `lora-best/` and the guard save.

The packaged config ``pocket_vllm`` trained far too long and too hard by the pocket judge alone. The ground truth looks
on with weight 0: by it `lora-best/` is chosen, and when it falls and the judge does not see it the guard ends the run.
A run that is there already can be read instead; the guard is then asked of its record, evaluation by evaluation.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks import results
from benchmarks.results import Figure
from benchmarks.runs import records_of
from deploy.records.best import LORA_BEST, MEASURED
from deploy.records.folder import RunFolder
from deploy.records.reading import RunRecord, read_run
from deploy.report.heldout import watch
from deploy.run.guards import hacked
from rc_grpo.evaluation.alarm import Alarm

PICTURES = Path(__file__).parents[1] / "docs" / "pocket"
PLOT, EDITS = PICTURES / "hacking.png", PICTURES / "hacked_edits.png"
NAME = "hacked"
TRUTH, JUDGE = "ground_truth", "editscore"
TOO_HARD = (
    "loop.updates=150", "learner.schedule=constant", "loop.groups_per_update=4",
    "evaluation.every=8", "evaluation.tasks=100", "guards.falling_evaluations=2",
)  # fmt: skip


def train(root: Path, *overrides: str) -> Path:
    """Run the training until it is done or its guard ends it; return its folder."""
    options = [f"name={NAME}", f"output.root={root}", *TOO_HARD, *overrides]
    command = [sys.executable, "-m", "deploy.cli", "train", "pocket_vllm"]
    subprocess.run([*command, *(part for option in options for part in ("--set", option))], check=False)
    return root / NAME


def of_the_truth(folder: Path) -> Alarm | None:
    """Return the report's alarm of the ground truth's held-out reward against the training reward."""
    alarms = watch(read_run(folder, NAME))
    return next((alarm for alarm in alarms if alarm.measure == f"reward/{TRUTH}"), None)


def of_kinds(folder: Path, after: int) -> dict[str, dict[str, float]]:
    """Return what judge and ground truth gave the candidates of the later updates, by kind of edit."""
    names = {name: f"reward.{name}" for name in (JUDGE, TRUTH)}
    given: dict[str, list[tuple[float, float]]] = {}
    for update, path in RunFolder(folder).experience().items():
        if update > after:
            rows = pq.read_table(path, columns=["kind", *names.values()]).to_pydict()
            for kind, *rewards in zip(*rows.values(), strict=True):
                given.setdefault(kind, []).append(tuple(rewards))
    return {kind: dict(zip(names, np.mean(both, axis=0).tolist(), strict=True)) for kind, both in given.items()}


def minutes_between(updates: Sequence[dict[str, Any]], first: int, last: int) -> float:
    """Return the minutes that the updates after the one take, up to the other."""
    return sum(line["seconds/update_total"] for line in updates if first < line["update"] <= last) / 60


def draw(folder: Path, alarm: Alarm | None, ended: int | None) -> None:
    """Draw what judge and ground truth say of the held-out edits, and where the alarm is."""
    evaluations = records_of(folder, "evaluation")
    figure, axes = plt.subplots(figsize=(7, 4), constrained_layout=True)
    for judge, label in ((JUDGE, "pocket judge (learned from)"), (TRUTH, "ground truth (looks on)")):
        values = [line[f"heldout/reward/{judge}"] for line in evaluations]
        axes.plot([line["update"] for line in evaluations], values, marker="o", label=label)
    if alarm is not None:
        axes.axvspan(alarm.since, alarm.seen, color="tab:red", alpha=0.12, label="they part, until the alarm sees it")
    if ended is not None:
        axes.axvline(ended, color="black", linestyle=":", label="the guard ends the run")
    axes.set(xlabel="update", ylabel="held-out reward")
    axes.legend(fontsize=8)
    figure.savefig(PLOT, dpi=110)


def ended_by_the_guard(run: RunRecord) -> int | None:
    """Return after how many updates the guard ends such a run, asked at each evaluation; None if it does not."""
    needed, updates = int(run.config["guards"]["falling_evaluations"]), run.evaluations.updates
    asked = (hacked(run, f"reward/{TRUTH}", needed, count) for count in range(1, len(updates) + 1))
    return next((update for update, alarm in zip(updates, asked, strict=True) if alarm is not None), None)


def main() -> None:
    """Train, or read a run, and write ``results/hacking.json`` and ``docs/pocket/hacking.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="override a key; repeatable")
    parser.add_argument("--folder", type=Path, help="of such a run, to be read instead of trained")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="rc-grpo-benchmark-"))
    try:
        folder = given.folder or train(root, *given.set)
        run = read_run(folder, NAME)
        updates, evaluations = records_of(folder), records_of(folder, "evaluation")
        alarm, ended = of_the_truth(folder), ended_by_the_guard(run)
        best = json.loads((folder / LORA_BEST / MEASURED).read_text())
        draw(folder, alarm, ended)
        last = max(RunFolder(folder).grids().items())[1]
        Image.open(last).convert("RGB").quantize(256).save(EDITS, optimize=True)
    finally:
        shutil.rmtree(root)
    truth, judge = ([line[f"heldout/reward/{name}"] for line in evaluations] for name in (TRUTH, JUDGE))
    numbers = [line["update"] for line in evaluations]
    figures = {
        "lora_best_over_last": Figure(
            best["reward"] - truth[-1], "ground-truth held-out reward", "above 0", "`lora-best/` against the last"
        ),
        "lora_best": Figure(best["reward"], "ground-truth held-out reward", None, f"of update {best['update']}"),
        "last": Figure(truth[-1], "ground-truth held-out reward", None, f"of update {numbers[-1]}"),
        "base": Figure(truth[0], "ground-truth held-out reward", None, "of the base model"),
        "judge_of_best": Figure(judge[numbers.index(best["update"])], "the judge's held-out reward", None),
        "judge_of_last": Figure(judge[-1], "the judge's held-out reward", None, "what it praises"),
    }
    if ended is not None:
        figures["guard_ends_it_after"] = Figure(ended, "updates", None, "it takes two evaluations in a row")
    if alarm is not None:
        kinds = of_kinds(folder, alarm.seen)
        for name in (JUDGE, TRUTH):
            figures[f"removals_{name}"] = Figure(kinds["remove"][name], "reward", None, f"after update {alarm.seen}")
        took = minutes_between(updates, alarm.since, alarm.seen)
        note = f"they part after update {alarm.since}; seen after {alarm.seen}"
        figures["detection_updates"] = Figure(alarm.seen - alarm.since, "updates", None, note)
        figures["detection_minutes"] = Figure(took, "minutes", None, note)
    detail = {
        "by_kind": {} if alarm is None else kinds,
        "heldout": {"update": [line["update"] for line in evaluations], TRUTH: truth, JUDGE: judge},
        "training_reward": [line["reward/task_mean"] for line in updates],
        "velocity_norms": {
            region: [line.get(f"update/first_step/velocity_norm_{region}") for line in updates]
            for region in ("edit", "background")
        },
    }
    print(results.write("hacking", figures, detail).read_text())


if __name__ == "__main__":
    main()
