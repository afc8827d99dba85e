"""Runs of ``rc-grpo train`` in a process of their own, and what they left."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from rc_grpo.data.log.experience import read_experience


def train(config: str, root: Path, name: str, *overrides: str) -> Path:
    """Run ``rc-grpo train CONFIG`` and return the run's folder."""
    subprocess.run(_command(config, root, name, overrides), check=True)
    return root / name


@contextmanager
def running(config: str, root: Path, name: str, *overrides: str) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """Start a run in a process of its own; it is ended with the block, if it has not ended by then."""
    with (root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(_command(config, root, name, overrides), stdout=log, stderr=subprocess.STDOUT)
    try:
        yield root / name, process
    finally:
        process.terminate()
        process.wait()


def finish(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    """Wait for a run's end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    if process.wait() != 0:
        said = folder.with_suffix(".log").read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{folder.name} failed:\n{said}")


def _command(config: str, root: Path, name: str, overrides: Sequence[str]) -> list[str]:
    options = [f"name={name}", f"output.root={root}", *overrides]
    command = [sys.executable, "-m", "deploy.cli", "train", config]
    return [*command, *(part for option in options for part in ("--set", option))]


def records_of(folder: Path, event: str = "update") -> list[dict[str, Any]]:
    """Return the run's records of one kind."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def summary_of(folder: Path) -> dict[str, Any]:
    """Return what the run said at its end."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def experience_of(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Return columns of the whole experience log."""
    paths = sorted((folder / "experience").glob("*.parquet"))
    return pa.concat_tables([read_experience(path).select(list(columns)) for path in paths])


def failed_scores(folder: Path) -> dict[str, int]:
    """Count in the experience log the candidates, those without a score, and those of them that were learned from."""
    rows = experience_of(folder, ["task_reward", "advantage"])
    reward, advantage = (rows.column(name).to_numpy() for name in ("task_reward", "advantage"))
    failed = reward != reward
    # A group that is skipped as a whole has advantages of zero: it is in no loss.
    learned = failed & (advantage == advantage) & (advantage != 0)
    return {"candidates": len(rows), "failed": int(failed.sum()), "failed_and_learned_from": int(learned.sum())}
