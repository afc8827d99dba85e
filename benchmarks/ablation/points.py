"""The runs of the ablation: an arm under a seed, each leaving one file of JSON lines."""

import json
import multiprocessing
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
    """

    part: str
    arm: str
    seed: int
    overrides: tuple[str, ...]

    def file(self, folder: Path) -> Path:
        """Return where its lines go."""
        words = re.sub("[^a-z0-9.]+", "-", self.arm.lower()).strip("-")
        return folder / f"{words}-seed{self.seed}.jsonl"


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


def train(todo: Sequence[Point], folder: Path, processes: int) -> Iterator[Point]:
    """Run what has no file yet, several at a time, and yield each as it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [(point, folder) for point in todo if not point.file(folder).is_file()]
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=1) as pool:
        yield from pool.imap_unordered(_train, missing, chunksize=1)


def _train(arguments: tuple[Point, Path]) -> Point:
    point, folder = arguments
    started, final = time.monotonic(), point.file(folder)
    unfinished = final.with_suffix(".unfinished")
    with unfinished.open("w", buffering=1) as file:

        def log(record: dict[str, Any]) -> None:
            file.write(json.dumps(rounded(record | {"seconds": time.monotonic() - started})) + "\n")

        log({"part": point.part, "arm": point.arm, "seed": point.seed, "overrides": list(point.overrides)})
        run(load_config("pocket", point.overrides), log, EVALUATE_EVERY, float("inf"))
    unfinished.rename(final)
    return point


def rounded(value: Any) -> Any:
    """Return JSON-like values with numbers to five significant digits: the files are kept in the repository."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
