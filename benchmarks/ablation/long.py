"""The long runs on a GPU: which they are, and one of them.

Every arm trains for the same time: those whose updates are cheaper make more of them, by the seconds of an update that
the plan has from a measurement. So the number of updates is fixed before, learning rates fall to their end, and a seed
gives the same run again; the time that it took is logged.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablation.running import Log
from benchmarks.ablation.worlds import Vandal, World, WorldJudge
from benchmarks.sequential import run
from deploy.configs import load_config
from rc_grpo.editor.export import save_lora
from rc_grpo.editor.loading import load_denoiser

PLAN = Path(__file__).parent / "plan_gpu.yaml"
PLAIN = "plain"
EVALUATIONS = 3
"""After the base model's, at equal distances."""

DAMAGED = "damaged"
"""Folder of the LoRA that a damaging base model begins with."""

DAMAGE = ("loop.updates=7", "loop.groups_per_update=4", "evaluation.tasks=50", "objective.acd_weight=0")
DAMAGE += ("rollout.exploration=global",)
"""How it is made: by a judge that wants the rest of the picture destroyed, see `benchmarks.ablation.worlds.Vandal`."""


@dataclass(frozen=True)
class LongRun:
    """One run.

    Attributes:
        world: its name.
        arm: its name in the plan.
        seed: of the run.
        overrides: of the packaged config, the seed's and the budget's included.
        updates: of it.
        damaged: the LoRA that a damaging base model begins with.
    """

    world: str
    arm: str
    seed: int
    overrides: tuple[str, ...]
    updates: int
    damaged: Path

    def file(self, folder: Path) -> Path:
        """Return where its lines go."""
        words = re.sub("[^a-z0-9]+", "-", f"{self.world} {self.arm}".lower()).strip("-")
        return folder / f"{words}-seed{self.seed}.jsonl"

    def head(self) -> dict[str, Any]:
        """Return its first line."""
        return {"part": self.world, "arm": self.arm, "seed": self.seed, "overrides": list(self.overrides)}

    def make(self, log: Log) -> None:
        """Make it."""
        world = World() if self.world == PLAIN else World.named(self.world)
        begin_with = (f"learner.start_from={self.damaged}",) if world.damages else ()
        config, every = load_config("pocket", (*self.overrides, *begin_with)), math.ceil(self.updates / EVALUATIONS)
        run(config, log, every, float("inf"), WorldJudge(world))


def plan() -> dict[str, Any]:
    """Return the plan as it is written."""
    read: dict[str, Any] = yaml.safe_load(PLAN.read_text())
    return read


def long_runs(folder: Path, worlds: Sequence[str], overrides: Sequence[str]) -> list[LongRun]:
    """Return the plan's runs, or some worlds', seed by seed, so that what is cut off lacks seeds and not arms.

    Args:
        folder: which `damage` wrote into.
        worlds: some; none for all.
        overrides: for every run.
    """
    planned, damaged = plan(), (folder / DAMAGED).absolute()
    compared = planned["worlds"]
    return [
        _planned(planned, world, arm, seed, overrides, damaged)
        for seed in range(planned["seeds"])
        for world, arms in compared.items()
        for arm in arms
        if not worlds or world in worlds
    ]


def _planned(
    planned: dict[str, Any], world: str, arm: str, seed: int, overrides: Sequence[str], damaged: Path
) -> LongRun:
    """Return a run of as many updates as take the slowest arm's time in its world."""
    seconds = planned["seconds"]
    slowest = max(seconds[beside] for beside in planned["worlds"][world])
    updates = round(planned["updates" if world == PLAIN else "world_updates"] * slowest / seconds[arm])
    own = (*planned["budget"], *planned["arms"][arm], f"loop.updates={updates}", f"seed={seed}", *overrides)
    return LongRun(world, arm, seed, own, updates, damaged)


def damage(folder: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Train the LoRA that damages backgrounds into ``FOLDER/damaged``, and return the run's lines."""
    config = load_config("pocket", (*DAMAGE, *overrides))
    lines: list[dict[str, Any]] = []
    weights = run(config, lines.append, config.loop.updates, float("inf"), Vandal())
    save_lora(load_denoiser(config.editor, config.seed), weights, folder / DAMAGED)
    return lines
