"""Arms on the pocket editor under the same seeds: runs that leave their lines, and what one arm learns over another."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation.running import Log, side_by_side
from benchmarks.ablation.seeds import difference
from benchmarks.ablation.statistics import Trained, gain, over_seeds, read
from benchmarks.results import Figure
from benchmarks.sequential import run
from deploy.configs import load_config

Arms = Mapping[str, Sequence[str]]
"""Overrides of the packaged configuration ``pocket``, by an arm's name."""


@dataclass(frozen=True)
class Point:
    """One run.

    Attributes:
        part: of which benchmark.
        arm: its name there.
        seed: of the run.
        updates: how many.
        overrides: the arm's, and all others'.
    """

    part: str
    arm: str
    seed: int
    updates: int
    overrides: tuple[str, ...]

    def file(self, folder: Path) -> Path:
        """Return where its lines go."""
        words = re.sub("[^a-z0-9]+", "-", self.arm.lower()).strip("-")
        return folder / f"{words}-seed{self.seed}.jsonl"

    def head(self) -> dict[str, Any]:
        """Return its first line."""
        return {"part": self.part, "arm": self.arm, "seed": self.seed, "overrides": list(self._settings)}

    def make(self, log: Log) -> None:
        """Make it; held-out tasks are edited before and after."""
        run(load_config("pocket", self._settings), log, self.updates, float("inf"))

    @property
    def _settings(self) -> tuple[str, ...]:
        return (*self.overrides, f"seed={self.seed}", f"loop.updates={self.updates}")


def trained(
    part: str,
    arms: Arms,
    updates: Mapping[str, int],
    out: Path,
    processes: int,
    seeds: int,
    overrides: Sequence[str] = (),
) -> dict[str, list[Trained]]:
    """Train every arm under every seed; what is finished already is not made again.

    Args:
        part: name of the benchmark.
        arms: by name.
        updates: of each.
        out: folder for the runs' lines.
        processes: runs side by side.
        seeds: of each arm.
        overrides: for every run.
    """
    todo = [
        Point(part, arm, seed, updates[arm], (*own, *overrides)) for seed in range(seeds) for arm, own in arms.items()
    ]
    for count, point in enumerate(side_by_side(todo, out, processes), start=1):
        print(f"{count} of {len(todo)}: {point.arm}, seed {point.seed}, {point.updates} updates", flush=True)
    found: dict[str, list[Trained]] = {arm: [] for arm in arms}
    for one in read(out):
        found[one.arm].append(one)
    return found


def gains(runs: Mapping[str, Sequence[Trained]], names: Mapping[str, str]) -> dict[str, Figure]:
    """Return what each arm gains on held-out tasks, by the arms' names in figures."""
    found = {}
    for arm, name in names.items():
        estimate = over_seeds(list(runs[arm]), gain("reward"))
        found[f"{name}_gain"] = Figure(estimate.mean, "held-out reward", None, f"± {estimate.half_width:.4f}")
    return found


def over(runs: Mapping[str, Sequence[Trained]], one: str, other: str, goal: str) -> Figure:
    """Return what one arm gains over another, paired by seeds."""
    found = difference({arm: list(of) for arm, of in runs.items()}, one, other, "pocket")
    estimate = found.estimate
    said = f"± {estimate.half_width:.4f} over {estimate.seeds} seeds; paired t, p = {found.p_value:.2g}"
    return Figure(estimate.mean, "held-out reward", goal, said)


def by_seed(runs: Mapping[str, Sequence[Trained]]) -> dict[str, dict[str, float]]:
    """Return every run's gain."""
    return {arm: {str(one.seed): gain("reward")(one) for one in of} for arm, of in runs.items()}
