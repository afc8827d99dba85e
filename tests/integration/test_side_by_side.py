"""Runs side by side in processes of their own."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ablation.running import Log, side_by_side


@dataclass(frozen=True)
class Toy:
    """A run that says its process."""

    name: str
    fails: bool = False

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.jsonl"

    def head(self) -> dict[str, Any]:
        return {"name": self.name}

    def make(self, log: Log) -> None:
        log({"process": os.getpid(), "value": 0.123456789})
        if self.fails:
            raise RuntimeError("cut off")


def test_runs_side_by_side_leave_a_file_each_and_what_has_one_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text("mine")
    done = {run.name for run in side_by_side([Toy("a"), Toy("b"), Toy("c")], tmp_path, 2)}
    assert done == {"a", "c"}
    assert (tmp_path / "b.jsonl").read_text() == "mine"
    lines = [[json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()] for name in "ac"]
    assert [head["name"] for head, _ in lines] == ["a", "c"]
    assert {line["value"] for _, line in lines} == {0.12346}
    assert len({line["process"] for _, line in lines} | {os.getpid()}) == 3


def test_a_run_that_was_cut_off_does_not_stand_under_its_name(tmp_path: Path) -> None:
    from benchmarks.ablation.statistics import read  # Not for every process that is started.

    with pytest.raises(RuntimeError, match="cut off"):
        list(side_by_side([Toy("a", fails=True)], tmp_path, 1))
    assert not (tmp_path / "a.jsonl").exists()
    with pytest.raises(ValueError, match="no finished run"):
        read(tmp_path)
