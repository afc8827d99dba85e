"""``rc-grpo masks`` makes a new data set that the data room reads, refuses by rule, and goes on where it was killed."""

import io
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from deploy.cli import app
from deploy.masks import command
from deploy.masks.parts import Parts
from rc_grpo.config import TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.editor.geometry import binary_mask
from rc_grpo.images import encode_png
from rc_grpo.masks.drawn import name_of
from rc_grpo.masks.making import RULES
from rc_grpo.pocket.world import PocketWorld

WORLD = PocketWorld("train", 12)
TASK = WORLD[0]
SOURCE, TARGET = TASK.source, TASK.target or b""


def masks(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["masks", *map(str, arguments)])


def made(*arguments: str | Path) -> str:
    result = masks(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def told(*arguments: str | Path) -> str:
    result = masks(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def read(folder: Path, **options: Any) -> Sequence[Any]:
    return load_tasks(TaskSource.model_validate({"format": "parquet", "path": folder, **options}))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("tasks-*.parquet"))
    return [row for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]


def refusals(folder: Path) -> dict[str, str]:
    items = map(json.loads, (folder / "refused.jsonl").read_text().splitlines())
    return {item["task_id"]: item["rule"] for item in items}


def overlap(one: bytes, other: bytes) -> float:
    first, second = binary_mask(one), binary_mask(other)
    return float((first & second).sum() / (first | second).sum())


@pytest.fixture
def pairs(tmp_path: Path) -> Callable[..., Path]:
    """Write a jsonl of pocket pairs without masks, each changed by one mapping, and their images."""

    def write(*changes: dict[str, Any], files: dict[str, bytes] | None = None) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        lines = []
        for number, change in enumerate(changes):
            task = WORLD[number]
            (folder / f"{number}-before.png").write_bytes(task.source)
            (folder / f"{number}-after.png").write_bytes(task.target or b"")
            good = {"task_id": task.task_id, "source": f"{number}-before.png", "target": f"{number}-after.png"}
            lines.append(json.dumps(good | {"instruction": task.instruction, "kind": task.kind} | change))
        for name, data in (files or {}).items():
            (folder / name).write_bytes(data)
        (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
        return folder / "pairs.jsonl"

    return write


def test_pairs_become_a_data_set_with_masks_that_the_data_room_reads(
    pairs: Callable[..., Path], tmp_path: Path
) -> None:
    path = pairs(*[{}] * 6)
    before = {file: file.read_bytes() for file in path.parent.iterdir()}
    said = made(path, "--by", "difference", "--out", tmp_path / "out")
    assert "6 tasks with masks" in said
    tasks = read(tmp_path / "out")
    assert [task.task_id for task in tasks] == [task.task_id for task in WORLD[:6]]
    for task, known in zip(tasks, WORLD, strict=False):
        assert (task.source, task.target, task.instruction, task.kind) == (
            known.source,
            known.target,
            known.instruction,
            known.kind,
        )
        assert overlap(task.mask, known.mask) > 0.65
    assert {file: file.read_bytes() for file in path.parent.iterdir()} == before
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        assert sheet.height > 6 * 100


def test_where_a_mask_is_from_is_kept_in_its_row_and_its_file(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({}, {})
    made(path, "--out", tmp_path / "out", "--margin", "0.05")
    one, two = rows_of(tmp_path / "out")
    assert one["mask_by"] == "difference"
    assert one["mask_area"] == pytest.approx(binary_mask(one["mask"]["bytes"]).mean())
    assert set(json.loads(one["mask_detail"])) == {"shift", "gain", "offset", "thresholds"}
    assert re.fullmatch(r"[0-9a-f]{12}(-[0-9a-f]{12}){3}", one["source_digest"])
    assert one["source_digest"] != two["source_digest"]
    header = json.loads(pq.read_schema(tmp_path / "out/tasks-00000.parquet").metadata[b"rc_grpo.masks"])
    assert header["rows"] == [0, 2]
    assert header["request"]["parameters"]["shape"]["margin"] == 0.05
    assert header["request"]["method"] == "difference"
    assert header["request"]["version"]
    kept = json.loads((tmp_path / "out/masks.json").read_text())
    assert kept["request"] == header["request"]
    assert kept["masks"] == {"difference": 2}


WHOLE = encode_png(255 - np.asarray(Image.open(io.BytesIO(SOURCE)).convert("RGB")))
DOT = np.array(Image.open(io.BytesIO(SOURCE)).convert("RGB"))
DOT[60:64, 60:64] = (255, 0, 255)


def test_tasks_that_get_no_mask_are_refused_by_rule_counted_and_listed(
    pairs: Callable[..., Path], tmp_path: Path
) -> None:
    path = pairs(
        {},
        {"target": None},
        {"source": "0-before.png", "target": "0-before.png"},
        {"source": "0-before.png", "target": "whole.png"},
        {"source": "0-before.png", "target": "dot.png"},
        {"target": "gone.png"},
        {"instruction": ""},
        {"target": "wide.png"},
        {"task_id": WORLD[0].task_id},
        files={
            "whole.png": WHOLE,
            "dot.png": encode_png(DOT),
            "wide.png": encode_png(np.zeros((64, 128, 3), dtype=np.uint8)),
        },
    )
    said = made(path, "--out", tmp_path / "out", "--min-area", "0.01", "--margin", "0")
    found = refusals(tmp_path / "out")
    ids = [task.task_id for task in WORLD]
    assert found == {
        ids[1]: "no target",
        ids[2]: "nothing changed",
        ids[3]: "everything changed",
        ids[4]: "too small",
        ids[5]: "unreadable",
        ids[6]: "unreadable",
        ids[7]: "sizes",
        ids[0]: "repeated",
    }
    assert "8 tasks without, by rule" in said
    for rule in set(found.values()):
        assert f"{rule}: {RULES[rule]}" in said
    assert [task.task_id for task in read(tmp_path / "out")] == [ids[0]]


def test_areas_out_of_bounds_are_refused(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({}, {})
    said = told(path, "--out", tmp_path / "out", "--max-area", "0.002")
    assert "no task of" in said
    assert "2 too large" in said
    assert set(refusals(tmp_path / "out").values()) == {"too large"}
    assert "--min-area 0.5 is not below --max-area 0.2" in told(
        path, "--out", tmp_path / "other", "--min-area", "0.5", "--max-area", "0.2"
    )


def test_what_was_killed_goes_on_and_ends_as_if_it_had_not_been(
    pairs: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pairs({}, {"target": None}, {}, {}, {"target": "0-before.png", "source": "0-before.png"}, {}, {})
    monkeypatch.setattr(command, "ROWS_AT_MOST", 2)
    made(path, "--out", tmp_path / "whole")
    write, killed = Parts.write, RuntimeError("killed")

    def dies(self: Parts, rows: tuple[int, int], *rest: Any) -> None:
        if rows[0] == 4:
            raise killed
        write(self, rows, *rest)

    monkeypatch.setattr(Parts, "write", dies)
    assert masks(path, "--out", tmp_path / "killed").exception is killed
    monkeypatch.setattr(Parts, "write", write)
    (tmp_path / "killed/.tasks-00002.parquet.unfinished").write_bytes(b"half")
    made(path, "--out", tmp_path / "killed")
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    assert refusals(tmp_path / "killed") == refusals(tmp_path / "whole")
    assert len(read(tmp_path / "killed")) == 5


def test_a_folder_of_another_request_is_refused_with_what_differs(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({}, {})
    made(path, "--out", tmp_path / "out", "--limit", "1")
    assert "parameters.shape.margin was 0.03125 and is 0.1" in told(path, "--out", tmp_path / "out", "--margin", "0.1")
    made(path, "--out", tmp_path / "out")
    assert len(read(tmp_path / "out")) == 2
    path.write_text(path.read_text().replace(WORLD[1].instruction, "Something else"))
    assert "files was" in told(path, "--out", tmp_path / "out")


def test_nothing_of_the_data_or_of_others_is_written_over(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({})
    assert "lie in one another" in told(path, "--out", path.parent)
    made(path, "--out", path.parent / "masks")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    assert "holds files that are not of rc-grpo masks" in told(path, "--out", tmp_path / "mine")
    assert "is a file; name a folder" in told(path, "--out", path)
    shutil.copytree(path.parent / "masks", tmp_path / "parquet")
    assert "lie in one another" in told(tmp_path / "parquet", "--out", tmp_path / "parquet/new")
    assert "lie in one another" in told(tmp_path / "parquet", "--out", tmp_path / "parquet")
    assert "lie in one another" in told(tmp_path / "parquet", "--out", tmp_path / "new", "--png", tmp_path / "new/png")


def test_a_mask_that_a_task_has_is_kept_unless_it_is_to_be_made_anew(
    pairs: Callable[..., Path], tmp_path: Path
) -> None:
    path = pairs({"mask": "known.png"}, {}, {"mask": "empty.png"}, files={"known.png": WORLD[0].mask, "empty.png": b""})
    said = made(path, "--out", tmp_path / "kept")
    assert [row["mask_by"] for row in rows_of(tmp_path / "kept")] == ["given", "difference", "difference"]
    assert read(tmp_path / "kept")[0].mask == WORLD[0].mask
    assert "1 given" in said
    said = made(path, "--out", tmp_path / "anew", "--renew")
    assert [row["mask_by"] for row in rows_of(tmp_path / "anew")] == ["difference"] * 3
    assert "overlap (IoU) with the tasks' own masks: median 0." in said


def test_the_pocket_world_s_own_masks_are_found_again(tmp_path: Path) -> None:
    made("pocket", "--out", tmp_path / "out", "--renew", "--limit", "6")
    found = [json.loads(row["mask_detail"])["iou_with_own"] for row in rows_of(tmp_path / "out")]
    assert len(found) == 6
    assert np.median(found) >= 0.8
    for row, task, figure in zip(rows_of(tmp_path / "out"), WORLD[:6], found, strict=True):
        assert overlap(row["mask"]["bytes"], task.mask) == pytest.approx(figure, abs=1e-3)


def test_masks_can_be_painted_in_and_thrown_away_as_files(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({}, {"task_id": "a/b:c"}, {})
    first, painted = tmp_path / "first", tmp_path / "painted"
    said = made(path, "--out", first, "--png", painted)
    assert "3 masks written" in said
    files = [painted / name_of(task.task_id) for task in read(first)]
    assert all(file.is_file() for file in files)
    drawn = Image.new("RGBA", (128, 128), "black")
    drawn.paste("white", (10, 20, 60, 70))
    drawn.save(files[1])
    files[2].unlink()
    assert "2 were there and are left as they are" in made(path, "--out", first, "--png", painted)
    files[2].unlink()
    made(path, "--by", "png", "--png", painted, "--out", tmp_path / "second")
    second = read(tmp_path / "second")
    assert [task.task_id for task in second] == [WORLD[0].task_id, "a/b:c"]
    assert second[0].mask == read(first)[0].mask
    inside = np.zeros((128, 128), dtype=bool)
    inside[20:70, 10:60] = True
    assert np.array_equal(binary_mask(second[1].mask), inside)
    assert refusals(tmp_path / "second") == {WORLD[2].task_id: "no file"}
    assert {row["mask_by"] for row in rows_of(tmp_path / "second")} == {"png"}


@pytest.mark.parametrize("task_id", ["plain", "a/b", "../up", ".hidden", "ü" * 100, "x" * 300, "a%2Fb", "A:b*?"])
def test_an_id_of_any_kind_is_a_name_of_its_own(task_id: str, tmp_path: Path) -> None:
    name = name_of(task_id)
    assert Path(name).name == name
    assert not name.startswith(".")
    (tmp_path / name).write_bytes(b"")
    others = ["plain2", "a_b", "up", "hidden", "ü" * 101, "x" * 301, "a/b2", "A:b*"]
    assert name not in map(name_of, others)


def test_masks_of_the_benchmark_are_masks_of_the_benchmark(tmp_path: Path) -> None:
    root = tmp_path / "bench/tasks/add"
    for name, data in (("input_image", SOURCE), ("edited_image", TARGET)):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").write_bytes(data)
    (root / "metadata.json").write_text(json.dumps([{"image_path": "1.png", "instruction": "Add a cat"}]))
    made(tmp_path / "bench", "--out", tmp_path / "out")
    with pytest.raises(DataError, match="CompBench, the benchmark"):
        read(tmp_path / "out")
    assert len(read(tmp_path / "out", allow_benchmark=True)) == 1


def test_omniedit_s_columns_go_in_and_ours_come_out(tmp_path: Path) -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "omni_edit_id": pa.array(["task_1"]),
        "task": pa.array(["addition"]),
        "src_img": pa.array([{"bytes": SOURCE, "path": None}], image),
        "edited_img": pa.array([{"bytes": TARGET, "path": None}], image),
        "edited_prompt_list": pa.array([["Add it to the left", "Add it"]]),
    }
    (tmp_path / "omni").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "omni/train-00000.parquet")
    made(tmp_path / "omni", "--out", tmp_path / "out")
    (task,) = read(tmp_path / "out")
    assert (task.task_id, task.kind, task.instruction) == ("task_1", "add", "Add it to the left")
    assert overlap(task.mask, TASK.mask) > 0.65


def test_columns_are_named_as_in_a_configuration(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({})
    path.write_text(json.dumps({"a": "0-before.png", "b": "0-after.png", "c": "Add a cat"}))
    assert "the columns there are: a, b, c" in told(path, "--out", tmp_path / "out")
    made(path, "--out", tmp_path / "out", "--column", "source=a", "--column", "target=b", "--column", "instruction=c")
    assert "FIELD=COLUMN" in told(path, "--out", tmp_path / "out", "--column", "source")
    assert "each field once" in told(path, "--out", tmp_path / "out", "--column", "source=a", "--column", "source=b")


@pytest.mark.parametrize(
    ("name", "said"), [("gone", "there is nothing at"), ("empty", "no data set that is read here")]
)
def test_data_that_are_none_are_named(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert said in told(tmp_path / name, "--out", tmp_path / "out")


def test_a_new_data_set_with_a_damaged_file_is_named(pairs: Callable[..., Path], tmp_path: Path) -> None:
    path = pairs({})
    made(path, "--out", tmp_path / "out")
    (tmp_path / "out/tasks-00000.parquet").write_bytes(b"PAR1 and no more")
    assert "tasks-00000.parquet is damaged" in told(path, "--out", tmp_path / "out")
