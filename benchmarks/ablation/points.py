"""The runs of the ablation: an arm under a seed, each leaving one file of JSON lines."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ablation.running import Log
from benchmarks.sequential import run
from deploy.configs import load_config

PLAN = Path(__file__).parent / "plan.yaml"
PARTS = ("methods", "tau", "claims")
EVALUATE_EVERY = 20


@dataclass(frozen=True)
class Point:
    """One run.

    Attributes:
        part: of the plan.
        arm: its name there.
        seed: of the run.
        overrides: of the packaged config, the seed's and the budget's included.
        evaluate_every: updates between evaluations.
    """

    part: str
    arm: str
    seed: int
    overrides: tuple[str, ...]
    evaluate_every: int = EVALUATE_EVERY

    def file(self, folder: Path) -> Path:
        """Return where its lines go."""
        words = re.sub("[^a-z0-9.]+", "-", self.arm.lower()).strip("-")
        return folder / f"{words}-seed{self.seed}.jsonl"

    def head(self) -> dict[str, Any]:
        """Return its first line."""
        return {"part": self.part, "arm": self.arm, "seed": self.seed, "overrides": list(self.overrides)}

    def make(self, log: Log) -> None:
        """Make it."""
        run(load_config("pocket", self.overrides), log, self.evaluate_every, float("inf"))


def points(parts: Sequence[str] = PARTS, seeds: int | None = None, overrides: Sequence[str] = ()) -> list[Point]:
    """Return the plan's runs, seed by seed, so that what is cut off lacks seeds and not arms.

    Raises:
        ValueError: there is no such part.
    """
    plan: dict[str, Any] = yaml.safe_load(PLAN.read_text())
    if unknown := set(parts) - set(PARTS):
        raise ValueError(f"the plan has no {sorted(unknown)}; it has {', '.join(PARTS)}")
    return [
        Point(part, arm, seed, (*plan["budget"], *own, f"seed={seed}", *overrides))
        for seed in range(seeds or plan["seeds"])
        for part in parts
        for arm, own in plan[part].items()
    ]
