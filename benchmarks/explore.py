"""Explore, then exact, against exact groups alone, at equal time on the pocket editor, over several seeds.

    python -m benchmarks.explore --out DIR [--processes 2] [--seeds 5]     # -> results/explore.json

Both arms learn from groups of twelve; the one chooses them from 48 candidates made in a third of the steps. A pilot
measures how long an update of each takes, alone on the machine, and the exploring arm is given as many fewer updates.
What is finished already is not made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.ablation.running import Log, side_by_side
from benchmarks.ablation.seeds import difference
from benchmarks.ablation.statistics import Trained, gain, over_seeds, read
from benchmarks.results import Figure, write
from benchmarks.sequential import run
from deploy.configs import load_config

EXACT, EXPLORED = "exact", "explore, then exact"
GROUP, POOL = 12, 48
ARMS = {EXACT: (f"rollout.group_size={GROUP}",), EXPLORED: (f"rollout.group_size={GROUP}", f"rollout.explore={POOL}")}
PILOT_UPDATES = 3
GOAL = "interval above 0, or the finding that it is not"


@dataclass(frozen=True)
class Point:
    """One run: an arm under a seed, with so many updates."""

    arm: str
    seed: int
    updates: int
    overrides: tuple[str, ...]
    part: str = "explore"

    def file(self, folder: Path) -> Path:
        """Return where its lines go."""
        return folder / f"{self.arm.split(',')[0]}-seed{self.seed}.jsonl"

    def head(self) -> dict[str, Any]:
        """Return its first line."""
        return {"part": self.part, "arm": self.arm, "seed": self.seed, "overrides": list(self._settings)}

    def make(self, log: Log) -> None:
        """Make it; held-out tasks are edited before and after."""
        run(load_config("pocket", self._settings), log, self.updates, float("inf"))

    @property
    def _settings(self) -> tuple[str, ...]:
        return (*ARMS[self.arm], f"seed={self.seed}", f"loop.updates={self.updates}", *self.overrides)


def pace(out: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Return the seconds that an update of each arm takes, measured one after the other, once for a folder.

    The first update, in which kernels and caches warm up, is left out.
    """
    pilots = [Point(arm, 0, PILOT_UPDATES, (*overrides, "evaluation.tasks=1")) for arm in ARMS]
    list(side_by_side(pilots, out / "pilot", 1))
    return {found.arm: float(np.diff(found.series("trained_seconds")).mean()) for found in read(out / "pilot")}


def main(
    out: Annotated[Path, typer.Option(help="folder for the runs' lines")],
    processes: Annotated[int, typer.Option(help="runs side by side")] = 2,
    seeds: Annotated[int, typer.Option(help="of each arm")] = 5,
    updates: Annotated[int, typer.Option(help="of the exact arm")] = 60,
    set_: Annotated[list[str] | None, typer.Option("--set", help="an override for every run")] = None,
) -> None:
    """Train both arms under every seed, compare them, and write ``results/explore.json``."""
    overrides = tuple(set_ or ())
    seconds = pace(out, overrides)
    planned = {EXACT: updates, EXPLORED: max(1, round(updates * seconds[EXACT] / seconds[EXPLORED]))}
    todo = [Point(arm, seed, planned[arm], overrides) for seed in range(seeds) for arm in ARMS]
    for count, point in enumerate(side_by_side(todo, out / "runs", processes), start=1):
        print(f"{count} done: {point.arm}, seed {point.seed}, {point.updates} updates", flush=True)
    arms: dict[str, list[Trained]] = {arm: [] for arm in ARMS}
    for found in read(out / "runs"):
        arms[found.arm].append(found)
    print(write("explore", _figures(arms, planned, overrides), _detail(arms, planned, seconds)))


def _figures(arms: dict[str, list[Trained]], planned: dict[str, int], overrides: Sequence[str]) -> dict[str, Figure]:
    gains = {arm: over_seeds(runs, gain("reward")) for arm, runs in arms.items()}
    spent = {arm: over_seeds(runs, _seconds).mean for arm, runs in arms.items()}
    figures = {
        "explore_cost": Figure(
            load_config("pocket", (*ARMS[EXPLORED], *overrides)).rollout.explore_cost,
            "forward passes of exact groups alone",
            "at most 2.4",
            f"{POOL} candidates in a third of the steps, and {GROUP} of them exactly",
        ),
        "time_ratio": Figure(
            spent[EXPLORED] / spent[EXACT],
            "training time of the exact arm",
            "near 1",
            f"{planned[EXPLORED]} updates against {planned[EXACT]}",
        ),
        "exact_gain": Figure(gains[EXACT].mean, "held-out reward", None, f"± {gains[EXACT].half_width:.4f}"),
        "explore_gain": Figure(gains[EXPLORED].mean, "held-out reward", None, f"± {gains[EXPLORED].half_width:.4f}"),
    }
    if len(arms[EXACT]) > 1:
        found = difference(arms, EXPLORED, EXACT, "pocket")
        figures["explore_over_exact"] = Figure(
            found.estimate.mean,
            "held-out reward",
            GOAL,
            f"± {found.estimate.half_width:.4f} over {found.estimate.seeds} seeds; paired t, p = {found.p_value:.2g}",
        )
    return figures


def _detail(arms: dict[str, list[Trained]], planned: dict[str, int], seconds: dict[str, float]) -> dict[str, Any]:
    names = ("explore/ground_truth_agreement", "explore/ground_truth_shift")
    return {
        "updates": planned,
        "seconds_an_update_in_the_pilot": seconds,
        "gains": {arm: {str(one.seed): gain("reward")(one) for one in runs} for arm, runs in arms.items()},
        "seconds": {arm: {str(one.seed): _seconds(one) for one in runs} for arm, runs in arms.items()},
        "pools": {name: float(np.nanmean([one.series(name) for one in arms[EXPLORED]])) for name in names},
    }


def _seconds(one: Trained) -> float:
    return float(one.updates[-1]["trained_seconds"])


if __name__ == "__main__":
    typer.run(main)
