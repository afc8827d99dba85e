"""A learner whose frozen projections are in float8 beside an exact one, on the pocket editor, over several seeds.

    python -m benchmarks.learner_fp8 --out DIR [--processes 2] [--seeds 5]     # -> results/learner_fp8.json

On a CPU the products have float8's rounding and not its speed. What is finished already is not made again.
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.arms import by_seed, gains, over, trained
from benchmarks.results import write

EXACT, FLOAT8 = "exact", "learner in float8"
ARMS = {EXACT: (), FLOAT8: ("learner.fp8=true", "objective.old_path=recompute")}
BUDGET = ("loop.groups_per_update=4", "evaluation.tasks=100")
"""The ablation's."""


def main(
    out: Annotated[Path, typer.Option(help="folder for the runs' lines")],
    processes: Annotated[int, typer.Option(help="runs side by side")] = 2,
    seeds: Annotated[int, typer.Option(help="of each arm")] = 5,
    updates: Annotated[int, typer.Option(help="of each run")] = 40,
    set_: Annotated[list[str] | None, typer.Option("--set", help="an override for every run")] = None,
) -> None:
    """Train both arms under every seed, compare them, and write ``results/learner_fp8.json``."""
    runs = trained("learner_fp8", ARMS, dict.fromkeys(ARMS, updates), out, processes, seeds, (*BUDGET, *(set_ or ())))
    figures = gains(runs, {EXACT: "exact", FLOAT8: "fp8"})
    if seeds > 1:
        figures["fp8_over_exact"] = over(runs, FLOAT8, EXACT, "interval around or above 0")
    print(write("learner_fp8", figures, {"updates": updates, "gains": by_seed(runs)}))


if __name__ == "__main__":
    typer.run(main)
