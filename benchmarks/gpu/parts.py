"""A benchmark in parts, each in a process of its own: a GPU is lent for minutes, and what is measured then is kept."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.results import Figure

Part = tuple[dict[str, Figure], Any]
"""Figures, and what else was seen."""


def apart(module: str, *arguments: str, limit: float | None = None) -> int:
    """Run a module's part in a process of its own; return its exit code, 124 if it took more than so many seconds."""
    try:
        return subprocess.run([sys.executable, "-m", module, *arguments], check=False, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return 124


def leave(path: Path, part: Part) -> None:
    """Keep what a part measured."""
    figures, detail = part
    left = {"figures": {name: asdict(figure) for name, figure in figures.items()}, "detail": detail}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(left), encoding="utf-8")


def gather(paths: Mapping[str, Path]) -> dict[str, Part]:
    """Return what lies there of the parts, by their names."""
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}
    return {name: (_figures(left["figures"]), left["detail"]) for name, left in found.items()}


def end(failed: Sequence[str]) -> None:
    """Exit with an error that names the parts that failed, if any did."""
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; what the others measured is kept")


def _figures(left: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    return {name: Figure(**figure) for name, figure in left.items()}
