"""The form in which every benchmark leaves its figures: ``benchmarks/results/NAME.json``."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.records.provenance import provenance

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        value: as measured, also when it misses the goal.
        unit: of the value.
        goal: what was asked for, in words, or None.
        note: what a reader must know to read it right.
    """

    value: float
    unit: str
    goal: str | None = None
    note: str | None = None


def write(name: str, figures: Mapping[str, Figure], detail: Mapping[str, Any], *, module: str | None = None) -> Path:
    """Write ``results/NAME.json`` with the command that is running now, that of ``module`` if it is named otherwise."""
    command = " ".join(["python", "-m", module or f"benchmarks.{name}", *sys.argv[1:]])
    record = {"command": command} | provenance()
    record |= {"figures": {key: asdict(figure) for key, figure in figures.items()}, "detail": dict(detail)}
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
    return path
