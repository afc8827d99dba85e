"""Arms on the pocket editor under the same seeds: runs that leave their lines, and what one arm learns over another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.ablation.points import Point
from benchmarks.ablation.running import side_by_side
from benchmarks.ablation.seeds import difference
from benchmarks.ablation.statistics import Trained, gain, over_seeds, read
from benchmarks.results import Figure

Arms = Mapping[str, Sequence[str]]
"""Overrides of the packaged configuration ``pocket``, by an arm's name."""


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
        # Held-out tasks are edited before and after.
        Point(part, arm, seed, (*own, *overrides, f"seed={seed}", f"loop.updates={updates[arm]}"), updates[arm])
        for seed in range(seeds)
        for arm, own in arms.items()
    ]
    for count, point in enumerate(side_by_side(todo, out, processes), start=1):
        print(f"{count} of {len(todo)}: {point.arm}, seed {point.seed}, {point.evaluate_every} updates", flush=True)
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
