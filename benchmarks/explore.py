"""Explore, then exact, against exact groups alone, at equal time on the pocket editor, over several seeds.

    python -m benchmarks.explore --out DIR [--processes 2] [--seeds 5]     # -> results/explore.json

Both arms learn from groups of twelve; the one chooses them from 48 candidates made in a third of the steps. A pilot
measures how long an update of each takes, alone on the machine, and the exploring arm is given as many fewer updates.
What is finished already is not made again.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.ablation.statistics import Trained, over_seeds
from benchmarks.arms import by_seed, gains, over, trained
from benchmarks.results import Figure, write
from deploy.configs import load_config

EXACT, EXPLORED = "exact", "explore, then exact"
GROUP, POOL = 12, 48
ARMS = {EXACT: (f"rollout.group_size={GROUP}",), EXPLORED: (f"rollout.group_size={GROUP}", f"rollout.explore={POOL}")}
PILOT_UPDATES = 3
GOAL = "interval above 0, or the finding that it is not"


def pace(out: Path, overrides: Sequence[str]) -> dict[str, float]:
    """Return the seconds that an update of each arm takes, measured one after the other, once for a folder.

    The first update, in which kernels and caches warm up, is left out.
    """
    pilots = dict.fromkeys(ARMS, PILOT_UPDATES)
    runs = trained("explore", ARMS, pilots, out / "pilot", 1, 1, (*overrides, "evaluation.tasks=1"))
    return {arm: float(np.diff(one.series("trained_seconds")).mean()) for arm, (one,) in runs.items()}


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
    arms = trained("explore", ARMS, planned, out / "runs", processes, seeds, overrides)
    print(write("explore", _figures(arms, planned, overrides), _detail(arms, planned, seconds)))


def _figures(arms: dict[str, list[Trained]], planned: dict[str, int], overrides: Sequence[str]) -> dict[str, Figure]:
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
        **gains(arms, {EXACT: "exact", EXPLORED: "explore"}),
    }
    if len(arms[EXACT]) > 1:
        figures["explore_over_exact"] = over(arms, EXPLORED, EXACT, GOAL)
    return figures


def _detail(arms: dict[str, list[Trained]], planned: dict[str, int], seconds: dict[str, float]) -> dict[str, Any]:
    names = ("explore/ground_truth_agreement", "explore/ground_truth_shift")
    return {
        "updates": planned,
        "seconds_an_update_in_the_pilot": seconds,
        "gains": by_seed(arms),
        "seconds": {arm: {str(one.seed): _seconds(one) for one in runs} for arm, runs in arms.items()},
        "pools": {name: float(np.nanmean([one.series(name) for one in arms[EXPLORED]])) for name in names},
    }


def _seconds(one: Trained) -> float:
    return float(one.updates[-1]["trained_seconds"])


if __name__ == "__main__":
    typer.run(main)
