"""The ablation's tables, in the form of the paper's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.ablation.points import points
from benchmarks.ablation.statistics import Estimate, Trained, gain, over_seeds

COLUMNS = {
    "reward": "edit score",
    "success": "success",
    "over_editing": "no over-editing",
    "background/psnr": "PSNR",
    "background/ssim": "SSIM",
    "drift": "drift",
}
"""Held-out quantities, and what they are called in a table."""

Rows = dict[str, dict[str, Estimate]]


def by_arm(runs: Sequence[Trained], *parts: str) -> dict[str, list[Trained]]:
    """Return the runs of some parts of the plan by arm, in the plan's order."""
    arms = {point.arm: [run for run in runs if run.arm == point.arm] for point in points(parts, seeds=1)}
    return {arm: own for arm, own in arms.items() if own}


def rows(arms: Mapping[str, Sequence[Trained]]) -> Rows:
    """Return held-out means after training by arm, the base model's first, and gains over it as ``gain of NAME``."""
    first = next(iter(arms.values()))
    table: Rows = {
        "base": {name: over_seeds(first, lambda run, name=name: float(np.mean(run.first(name)))) for name in COLUMNS}
    }
    for arm, runs in arms.items():
        table[arm] = {
            name: over_seeds(runs, lambda run, name=name: float(np.mean(run.last(name)))) for name in COLUMNS
        } | {f"gain of {name}": over_seeds(runs, gain(name)) for name in COLUMNS}
    return table


def against(reference: Sequence[Trained], arms: Mapping[str, Sequence[Trained]]) -> dict[str, Estimate]:
    """Return by arm how much higher its final edit score is than the reference's under the same seed."""
    final = {run.seed: run.last("reward").mean() for run in reference}
    return {
        arm: over_seeds(runs, lambda run: float(run.last("reward").mean() - final[run.seed]))
        for arm, runs in arms.items()
    }


def as_json(table: Rows) -> dict[str, dict[str, Any]]:
    """Return a table as plain values."""
    return {arm: {name: vars(estimate) for name, estimate in row.items()} for arm, row in table.items()}


def show(title: str, header: Sequence[str], cells: Sequence[Sequence[str]], console: Console) -> None:
    """Print a table."""
    printed = Table(*header, title=title, title_justify="left")
    for row in cells:
        printed.add_row(*row)
    console.print(printed)


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return a table for the docs."""
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def written(table: Rows, differences: Mapping[str, Estimate], reference: str) -> tuple[list[str], list[list[str]]]:
    """Return header and cells: means with the half-widths of their intervals, gains, differences to the reference."""
    header = ["", *COLUMNS.values(), "gain of the edit score", f"against {reference}"]
    cells = [
        [
            arm,
            *(f"{row[name].mean:.3f} ± {row[name].half_width:.3f}" for name in COLUMNS),
            str(row.get("gain of reward", "")),
            "" if arm == reference else str(differences.get(arm, "")),
        ]
        for arm, row in table.items()
    ]
    return header, cells
