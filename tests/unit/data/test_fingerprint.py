"""A fingerprint changes with whatever a task shows, names the task and the part, and with nothing else."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rc_grpo.config import TaskSource
from rc_grpo.data import load_tasks
from rc_grpo.data.fingerprint import PARTS, Fingerprint, changed_parts

from .conftest import HEIGHT, MASK, SOURCE, TARGET, WIDTH, image_feature, photo, png, region, source_of

OTHER = png(photo(9))
OTHER_MASK = png(np.where(~region(), np.uint8(255), np.uint8(0)))


def of(path: Path, **options: Any) -> Fingerprint:
    return Fingerprint.of(load_tasks(source_of(path, **options)))


def test_the_same_data_elsewhere_and_written_later_are_the_same(lines, tmp_path: Path) -> None:
    path = lines({"target": "target.png"}, {})
    before = of(path)
    shutil.copytree(tmp_path, tmp_path.parent / "elsewhere")
    os.utime(tmp_path.parent / "elsewhere" / "source.png", (1, 1))
    assert before.changes(of(tmp_path.parent / "elsewhere" / "tasks.jsonl")) is None
    assert before.changes(Fingerprint.from_json(json.loads(json.dumps(before.as_json())))) is None


@pytest.mark.parametrize(
    ("change", "files", "part"),
    [
        ({"instruction": "Add a dog"}, {}, "text"),
        ({"caption": "a dog"}, {}, "text"),
        ({"kind": "remove"}, {}, "text"),
        ({}, {"source.png": OTHER}, "source"),
        ({}, {"mask.png": OTHER_MASK}, "mask"),
        ({"mask": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}}, {}, "mask"),
        ({}, {"target.png": OTHER}, "target"),
        ({"target": None}, {}, "target"),
    ],
)
def test_each_part_of_a_task_counts_and_is_named(lines, change: dict[str, Any], files: Any, part: str) -> None:
    good = {"target": "target.png"}
    before = of(lines(good, good))
    after = of(lines(good, good | change, files=files))
    said = before.changes(after)
    assert said is not None
    assert f"'t1': {part}" in said
    assert (f"'t0': {part}" in said) == bool(files), "a file that both name changes both"
    assert before.as_json()["digest"] != after.as_json()["digest"]
    assert before.changes(before) is None


def test_added_removed_and_reordered_tasks_are_told(lines) -> None:
    path = lines({}, {}, {})
    before, rows = of(path), path.read_text().splitlines()
    path.write_text("\n".join([*rows[:2], rows[2].replace("t2", "t3")]) + "\n")
    assert before.changes(of(path)) == "1 added ('t3'), 1 removed ('t2')"
    path.write_text("\n".join(reversed(rows)) + "\n")
    assert before.changes(of(path)) == "the order of the tasks"
    path.write_text(rows[0] + "\n")
    assert before.changes(of(path)) == "2 removed ('t1'; 't2')"


def test_only_what_is_used_counts(lines) -> None:
    path = lines({}, {}, {})
    whole, limited = of(path), of(path, limit=1)
    path.write_text(path.read_text().replace('"t2"', '"t9"'))
    assert limited.changes(of(path, limit=1)) is None
    assert whole.changes(of(path)) is not None
    assert list(Fingerprint.of(load_tasks(source_of(path))[1:]).tasks) == ["t1", "t9"]


def test_a_refused_task_has_no_fingerprint(lines) -> None:
    tasks = load_tasks(source_of(lines({}, {"instruction": ""}, {}), on_bad_task="skip"))
    assert list(Fingerprint.of(tasks).tasks) == ["t0", "t2"]


def test_parquet_and_compbench_have_fingerprints_too(table, compbench) -> None:
    columns = {"instruction": ["a", "b"], "mask": [MASK] * 2, "source": image_feature(SOURCE, SOURCE)}
    before = of(table(**columns, target=[TARGET, TARGET]))
    assert before.changes(of(table(**columns, target=[TARGET, OTHER]))) == "1 changed ('data-000001': target)"
    root = compbench(1, ["add"])
    before = Fingerprint.of(load_tasks(source_of(root, "compbench"), "evaluate"))
    next((root / "add" / "mask").rglob("*.png")).write_bytes(OTHER_MASK)
    said = before.changes(Fingerprint.of(load_tasks(source_of(root, "compbench"), "evaluate")))
    assert said == "1 changed ('add/00000000/0/00000.png': mask)"


def test_of_a_large_file_the_length_and_blocks_from_first_to_last_byte_count(lines, tmp_path: Path) -> None:
    large = png(np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8))
    assert len(large) > 1 << 20
    path = lines({"target": "large.png"}, files={"large.png": large})
    before = of(path)
    middle = len(large) // 2
    for place in (40, 50_000, len(large) - 20):
        altered = bytearray(large)
        altered[place] ^= 1
        (tmp_path / "large.png").write_bytes(bytes(altered))
        tasks = load_tasks(source_of(lines({"target": "large.png"}, files={"large.png": large})))
        (tmp_path / "large.png").write_bytes(bytes(altered))
        assert before.changes(Fingerprint.of(tasks)) == "1 changed ('t0': target)"
    (tmp_path / "large.png").write_bytes(large[:middle] + b"\0" + large[middle:])
    assert changed_parts(before.tasks["t0"], Fingerprint.of(tasks).tasks["t0"]) == ["target"]


def test_generated_tasks_are_told_by_their_parameters() -> None:
    def pocket(**options: Any) -> Fingerprint:
        return Fingerprint.of(load_tasks(TaskSource(format="pocket", **options)))

    assert pocket(limit=5).tasks == {}
    assert pocket(limit=5).changes(pocket(limit=5)) is None
    said = pocket(limit=5).changes(pocket(limit=6))
    assert said == "it was the pocket world (train, 5 tasks) and is the pocket world (train, 6 tasks)"
    assert pocket(limit=5).changes(pocket(limit=5, split="heldout")) is not None


def test_a_thousand_small_tasks_take_a_second_or_two(lines) -> None:
    tasks = load_tasks(source_of(lines(*[{"target": "target.png"}] * 1000)))
    start = time.process_time()
    assert len(Fingerprint.of(tasks).tasks) == 1000
    # On a core of one's own 0.7 s; the bound is for one that is shared.
    assert time.process_time() - start < 5


def test_the_parts_of_two_digests_are_compared_one_by_one() -> None:
    assert changed_parts("a-b-c-d", "a-b-c-d") == []
    assert changed_parts("a-b-c-d", "e-f-g-h") == list(PARTS)
    assert changed_parts("a-b-c-d", "a-b-x-d") == ["mask"]
