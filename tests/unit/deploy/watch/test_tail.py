"""What the page has read of a growing file is what somebody would read who opened it now."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.records.metrics import METRICS, MetricsLog
from deploy.records.reading import read_run
from deploy.watch import tail
from deploy.watch.tail import MetricsTail
from rc_grpo.durable import write_whole
from tests.unit.deploy.report.folders import write_run

NAMES = ("reward/task_mean", "update/grad_norm", "acd/mean")


def by_hand(data: bytes) -> tuple[list[int], dict[str, list[float | None]], dict[int, float]]:
    """Return updates, metrics and held-out rewards of whole lines, with nothing of the product."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in data.split(b"\n")[:-1]]
    updates = [line for line in lines if line["event"] == "update"]
    names = {name for line in updates for name in line if "/" in name}
    heldout = {line["update"]: line["heldout/reward"] for line in lines if line["event"] == "evaluation"}
    return [line["update"] for line in updates], {n: [line.get(n) for line in updates] for n in names}, heldout


def agrees(follower: MetricsTail, data: bytes) -> bool:
    updates, metrics, heldout = by_hand(data)
    found = {name: [None if np.isnan(v) else v for v in column] for name, column in follower.curves.metrics.items()}
    return (
        follower.curves.updates.tolist() == updates
        and found == metrics
        and follower.curves.heldout.get("heldout/reward", {}) == heldout
    )


figures = st.one_of(st.none(), st.floats(-1e6, 1e6))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("update"), st.dictionaries(st.sampled_from(NAMES), figures)),
        st.tuples(st.just("evaluation"), st.floats(0, 1)),
        st.tuples(st.just("tear"), st.integers(1, 40)),
        st.tuples(st.just("rewind"), st.integers(0, 6)),
        st.tuples(st.just("cut"), st.integers(1, 200)),
        st.tuples(st.just("remove"), st.none()),
        st.tuples(st.just("look"), st.none()),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(steps)
def test_whatever_happens_to_the_file_what_was_read_is_what_it_holds(tmp_path_factory: Any, steps: Any) -> None:
    path = tmp_path_factory.mktemp("run") / METRICS
    follower, data, rest, number = MetricsTail(path), b"", b"", 0

    def append(more: bytes) -> None:
        nonlocal data
        data += more
        with path.open("ab") as file:
            file.write(more)

    for what, detail in [*steps, ("look", None)]:
        if what in ("update", "evaluation", "tear"):
            append(rest)
            rest = b""
        if what == "update":
            number += 1
            append(json.dumps({"update": number, "event": "update", "version": "v", **detail}).encode() + b"\n")
        elif what == "evaluation":
            number += 1
            append(json.dumps({"update": number, "event": "evaluation", "heldout/reward": detail}).encode() + b"\n")
        elif what == "tear":
            # A line of which a part is there, and the rest when the next is written.
            number += 1
            line = json.dumps({"update": number, "event": "update", "acd/mean": number / 7}).encode() + b"\n"
            append(line[:detail])
            rest = line[detail:]
        elif what == "rewind":
            data, rest = b"".join(line + b"\n" for line in data.split(b"\n")[:-1][:detail]), b""
            write_whole(path, data)
        elif what == "cut" and data:
            data, rest = data[: max(0, len(data) - detail)], b""
            data = data[: data.rfind(b"\n") + 1]
            os.truncate(path, len(data))
        elif what == "remove":
            path.unlink(missing_ok=True)
            data, rest = b"", b""
        elif what == "look":
            follower.read()
            assert agrees(follower, data)
            assert not follower.read()
            assert follower.remark == ""


def test_what_a_run_writes_is_followed_to_what_its_report_reads(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", updates=6, every=2, logged=0)
    whole, follower = (run / METRICS).read_bytes(), MetricsTail(run / "grows.jsonl")
    for end in range(0, len(whole) + 1, 97):
        (run / "grows.jsonl").write_bytes(whole[:end])
        follower.read()
    (run / "grows.jsonl").write_bytes(whole)
    follower.read()
    record = read_run(run, "run")
    assert follower.curves.updates.tolist() == record.updates.tolist()
    assert follower.curves.heldout == record.heldout
    assert follower.curves.metrics.keys() == record.metrics.keys()
    assert all(np.array_equal(v, follower.curves.column(n), equal_nan=True) for n, v in record.metrics.items())


def test_a_run_that_goes_back_is_followed_back(tmp_path: Path) -> None:
    log, follower = MetricsLog(tmp_path), MetricsTail(tmp_path / METRICS)
    for update in range(1, 6):
        log.write(update, {"reward/task_mean": float(update)}, event="update")
    assert follower.read()
    log.rewind(2, tmp_path / "aside")
    log.write(3, {"reward/task_mean": 30.0}, event="update")
    assert follower.read()
    assert follower.curves.column("reward/task_mean").tolist() == [1.0, 2.0, 30.0]
    log.close()


@pytest.mark.parametrize(
    "line",
    [
        b"<html>",
        b"",
        b"[]",
        b'{"update": "1"}',
        b'{"update": 1, "reward/task_mean": "0.5"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
    ids=["a page", "nothing", "a list", "a text for a number", "a text for a figure", "no UTF-8", "brackets"],
)
def test_a_line_that_is_none_is_left_out_and_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / METRICS
    good = [json.dumps({"update": n, "event": "update", "acd/mean": n / 2}).encode() for n in (1, 2)]
    path.write_bytes(good[0] + b"\n" + line + b"\n" + good[1] + b"\n")
    follower = MetricsTail(path)
    follower.read()
    assert follower.curves.column("acd/mean").tolist() == [0.5, 1.0]
    assert "line 2" in follower.remark
    assert METRICS in follower.remark


def test_a_file_without_lines_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "LONGEST_LINE", 1000)
    monkeypatch.setattr(tail, "_CHUNK", 100)
    path = tmp_path / METRICS
    path.write_bytes(b"x" * 100_000)
    asked: list[int] = []
    opened = Path.open

    class Counting:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> "Counting":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def read(self, size: int) -> bytes:
            asked.append(size)
            return bytes(self._file.read(size))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    monkeypatch.setattr(Path, "open", lambda self, *how: Counting(opened(self, *how)))
    MetricsTail(path).read()
    assert sum(asked) <= 1200
