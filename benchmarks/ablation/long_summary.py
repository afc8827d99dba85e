"""What the long runs say: figures, tables, curves, and every comparison with its chance."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation import plots
from benchmarks.ablation.long import PLAIN, plan
from benchmarks.ablation.seeds import Difference, corrected, difference
from benchmarks.ablation.statistics import Estimate, Trained, gain, over_seeds
from benchmarks.ablation.tables import markdown
from benchmarks.results import Figure

FULL, RDP, GLOBAL, GUARDED = "RDP + ACD", "RDP", "global", "global, NormGuard"
SDE, NFT = "Flow-GRPO", "DiffusionNFT"
BACKGROUND = "background/psnr"

Worlds = Mapping[str, Mapping[str, Sequence[Trained]]]


def by_world(runs: Sequence[Trained]) -> Worlds:
    """Return the runs by world and arm, in the plan's order."""
    found = {
        world: {arm: [run for run in runs if (run.part, run.arm) == (world, arm)] for arm in arms}
        for world, arms in plan()["worlds"].items()
    }
    return {world: {arm: own for arm, own in arms.items() if own} for world, arms in found.items()}


def comparisons(worlds: Worlds) -> list[Difference]:
    """Return all comparisons that are made, chosen before the runs: their number is what Holm's correction is for."""
    asked = [(PLAIN, FULL, other, "reward") for other in worlds[PLAIN] if other != FULL]
    asked += [(world, RDP, GLOBAL, "reward") for world in worlds]
    asked += [(world, FULL, RDP, "reward") for world in worlds if world != PLAIN]
    asked += [(world, RDP, GLOBAL, BACKGROUND) for world in worlds]
    asked += [
        (world, GUARDED, GLOBAL, name)
        for world in worlds
        if GUARDED in worlds[world]
        for name in ("reward", BACKGROUND)
    ]
    return corrected([difference(worlds[world], one, other, world, name) for world, one, other, name in asked])


def figures(worlds: Worlds, compared: Sequence[Difference]) -> dict[str, Figure]:
    """Return the figures of ``results/ablation_gpu.json``."""
    plain = worlds[PLAIN]
    shares = {arm: over_seeds(runs, share_of_distance) for arm, runs in plain.items()}
    best = max(shares, key=lambda arm: shares[arm].mean)
    found = {
        "best_gain_share": Figure(
            shares[best].mean,
            "share of the distance to the maximum",
            "at least 0.35",
            f"{best}, the highest of {len(shares)} arms; {_interval(shares[best])}",
        )
    }
    named = {(PLAIN, FULL, SDE): "rdp_acd_over_sde", (PLAIN, FULL, NFT): "rdp_acd_over_nft"}
    for one in compared:
        of_reward = one.name == "reward"
        key = f"{one.world}_{slug(one.one)}_over_{slug(one.other)}" + ("" if of_reward else "_psnr")
        p_value, corrected_one = _chances(one)
        note = f"{one.one} against {one.other}; {_interval(one.estimate)}; p {p_value}, corrected {corrected_one}"
        found[named.get((one.world, one.one, one.other), key)] = Figure(
            one.estimate.mean, "reward" if of_reward else "dB", None, note
        )
    found["comparisons"] = Figure(len(compared), "comparisons", None, "chosen before the runs, corrected by Holm")
    found["beyond_chance"] = Figure(
        sum(one.verdict != "even" for one in compared), "comparisons", None, "after the correction"
    )
    for arm, runs in plain.items():
        gained, minutes = over_seeds(runs, gain("reward")), over_seeds(runs, gpu_minutes)
        found[f"gain_{slug(arm)}"] = Figure(gained.mean, "reward", None, f"± {gained.half_width:.4f}")
        updates = over_seeds(runs, lambda run: float(len(run.updates)))
        found[f"gpu_minutes_{slug(arm)}"] = Figure(
            minutes.mean, "minutes of a card", None, f"± {minutes.half_width:.2f}, {updates.mean:.0f} updates"
        )
    return found


def detail(worlds: Worlds, compared: Sequence[Difference]) -> dict[str, Any]:
    """Return all gains and comparisons, and on what the runs were made."""
    gains = {
        world: {
            arm: {name: vars(over_seeds(runs, gain(name))) for name in ("reward", "success", BACKGROUND)}
            | {"share_of_distance": vars(over_seeds(runs, share_of_distance)), "norms": norms(runs)}
            for arm, runs in arms.items()
        }
        for world, arms in worlds.items()
    }
    asked = [vars(one) | {"estimate": vars(one.estimate), "verdict": one.verdict} for one in compared]
    cards = sorted({run.card for arms in worlds.values() for runs in arms.values() for run in runs})
    return {"gains": gains, "comparisons": asked, "trained_on": cards}


def tables(worlds: Worlds, compared: Sequence[Difference]) -> str:
    """Return the page of tables."""
    parts = ["# Tables of the long runs", ""]
    for world, arms in worlds.items():
        header = [
            "",
            "held-out reward before",
            "after",
            "gain",
            "background before, dB",
            "gain",
            "velocity norm in, out",
        ]
        cells = [
            [arm, _mean(runs, "first", "reward"), _mean(runs, "last", "reward"), str(over_seeds(runs, gain("reward"))),
             _mean(runs, "first", BACKGROUND), f"{over_seeds(runs, gain(BACKGROUND))}",
             ", ".join(f"{value:.2f}" for value in norms(runs).values())]
            for arm, runs in arms.items()
        ]  # fmt: skip
        parts += [f"## World: {world}", "", markdown(header, cells), ""]
    header = ["world", "held-out", "", "against", "difference of gains", "p", f"p, Holm of {len(compared)}", ""]
    cells = [
        [
            one.world,
            one.name,
            one.one,
            one.other,
            str(one.estimate),
            f"{one.p_value:.3f}",
            f"{one.corrected:.3f}",
            one.verdict,
        ]
        for one in compared
    ]
    return "\n".join([*parts, "## Comparisons", "", markdown(header, cells), ""])


def draw(worlds: Worlds, folder: Path) -> None:
    """Draw the plain world's curves and the gains in all worlds."""
    plots.long_curves(worlds[PLAIN], folder / "long_curves.png")
    shown = {
        world: {arm: over_seeds(runs, gain("reward")) for arm, runs in arms.items() if arm in (FULL, RDP, GLOBAL)}
        for world, arms in worlds.items()
    }
    plots.gains(shown, folder / "worlds.png")


def share_of_distance(run: Trained) -> float:
    """Return the share of the distance from the base model's held-out reward to the maximum that a run gained."""
    first = run.first("reward").mean()
    return float((run.last("reward").mean() - first) / (1 - first))


def gpu_minutes(run: Trained) -> float:
    """Return the minutes of training, by the share of the card that the run had."""
    return float(run.updates[-1]["trained_seconds"]) * run.card_share / 60


def norms(runs: Sequence[Trained]) -> dict[str, float]:
    """Return the velocity's norm over the base model's inside and outside the mask, mean of the last ten updates."""
    last = [line for run in runs for line in run.updates[-10:]]
    # An update of which every group was skipped has no velocity to measure.
    return {
        region: float(np.mean([line[f"velocity_norm_{region}"] for line in last if f"velocity_norm_{region}" in line]))
        for region in ("edit", "background")
    }


def slug(arm: str) -> str:
    """Return an arm's name as a figure's: ``rdp_acd`` of ``RDP + ACD``."""
    return re.sub("[^a-z0-9]+", "_", arm.lower()).strip("_")


def _interval(estimate: Estimate) -> str:
    return f"± {estimate.half_width:.4f} over {estimate.seeds} seeds"


def _chances(one: Difference) -> tuple[str, str]:
    return f"{one.p_value:.3f}", f"{one.corrected:.3f}"


def _mean(runs: Sequence[Trained], which: str, name: str) -> str:
    return f"{over_seeds(runs, lambda run: float(np.mean(getattr(run, which)(name)))).mean:.3f}"
