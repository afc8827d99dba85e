"""The tasks of a configuration can be looked at before anything is rolled out, and what is wrong with them is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image
from typer.testing import CliRunner

from deploy.cli import app
from deploy.configs import load_config
from deploy.evaluating.preview import Preview
from deploy.records.contact_sheet import contact_sheet
from rc_grpo.config import ConfigError
from rc_grpo.data import DataError
from rc_grpo.images import decode_rgb, encode_png
from rc_grpo.pocket.world import PocketWorld
from tests.unit.deploy.report.folders import write_run

TASK = PocketWorld("train", 1)[0]
ABSENT = "editor.model=/no/such/editor"


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """Write tasks of one's own, each changed by one mapping, and return the override that names them."""

    def write(*changes: dict[str, Any]) -> str:
        for name, data in (("source.png", TASK.source), ("mask.png", TASK.mask), ("target.png", TASK.target)):
            (tmp_path / name).write_bytes(data or b"")
        good = {"source": "source.png", "mask": "mask.png", "target": "target.png", "instruction": "Add a cat"}
        rows = [good | {"task_id": f"t{number}"} | change for number, change in enumerate(changes)]
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"data.train={{format: jsonl, path: {tmp_path}/tasks.jsonl}}"

    return write


def preview(*overrides: str, count: int = 12) -> Preview:
    return Preview.of(load_config("pocket", overrides), "train", count)


def test_the_first_tasks_are_drawn_with_source_outlined_mask_target_and_instruction() -> None:
    seen = preview(count=3)
    assert seen.shown == "the first 3 of 2000 usable tasks"
    assert seen.remarks == ()
    for row, task in zip(seen.rows, PocketWorld("train", 3), strict=True):
        assert row.title == f"{task.task_id}: {task.instruction}"
        pictures = {label: pixels for pixels, label in row.cells}
        assert list(pictures) == ["source", "mask", "target"]
        np.testing.assert_array_equal(pictures["source"], decode_rgb(task.source))
        np.testing.assert_array_equal(pictures["target"], decode_rgb(task.target or b""))
        changed = (pictures["mask"] != pictures["source"]).any(axis=2)
        inside = decode_rgb(task.mask)[..., 0] > 0
        assert changed.any()
        assert not changed[~inside].any()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source": "gone.png"}, "gone.png"),
        ({"mask": None}, "mask"),
        ({"instruction": " "}, "the instruction is empty"),
        ({"instruction": "Add a small cat in the top left " * 20}, "editor.text_tokens is 24"),
        ({"task_id": "t0"}, "two tasks have the id 't0'"),
    ],
)
def test_bad_tasks_are_named_beside_the_sheet_of_the_good_ones(own: Any, change: dict[str, Any], reason: str) -> None:
    seen = preview(own({}, change, {}))
    assert [row.title for row in seen.rows] == ["t0: Add a cat", "t2: Add a cat"]
    (words,) = seen.remarks
    assert f"task {change.get('task_id', 't1')!r}" in words
    assert "tasks.jsonl, line 2" in words
    assert reason in words


def test_an_image_that_only_decoding_finds_broken_is_named_and_the_next_is_drawn(own: Any, tmp_path: Path) -> None:
    override = own({"source": "torn.png"}, {})
    torn = bytearray(TASK.source)
    torn[len(torn) // 2] ^= 0xFF
    (tmp_path / "torn.png").write_bytes(torn)
    seen = preview(override, count=1)
    assert [row.title for row in seen.rows] == ["t1: Add a cat"]
    assert any("'t0'" in remark for remark in seen.remarks)


def test_data_without_a_task_to_show_are_an_error_with_every_reason(own: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)2 of 2 tasks are unusable.*gone\.png.*the instruction is empty"):
        preview(own({"source": "gone.png"}, {"instruction": ""}))
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        preview(f"data.train={{format: jsonl, path: {tmp_path}/nowhere.jsonl}}")
    with pytest.raises(ConfigError, match="heldout is not set"):
        Preview.of(load_config("pocket", ("data.heldout=null", "evaluation.tasks=0")), "heldout", 1)


def test_what_a_run_would_refuse_and_what_is_unusual_is_said(own: Any, tmp_path: Path) -> None:
    (tmp_path / "all.png").write_bytes(encode_png(np.full((128, 128), 255, dtype=np.uint8)))
    seen = preview(own({"target": None, "mask": "all.png"}))
    assert any("needs the target of every task" in remark for remark in seen.remarks)
    assert any("'t0'" in remark and "covers the whole image" in remark for remark in seen.remarks)
    assert [label for _, label in seen.rows[0].cells] == ["source", "mask"]


def test_neither_weights_nor_a_cluster_are_needed(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("asked for")

    monkeypatch.setattr(ray, "init", never)
    monkeypatch.setattr("torch.nn.Module.load_state_dict", never)
    assert len(preview(count=2).rows) == 2
    seen = preview(own({}), ABSENT)
    assert len(seen.rows) == 1
    (words,) = seen.remarks
    assert words.startswith("instructions and small masks are not checked")
    assert "/no/such/editor" in words


def test_a_large_picture_is_drawn_small_and_a_small_mask_of_it_stays(own: Any, tmp_path: Path) -> None:
    override = own({"source": "large.png", "mask": "spot.png", "target": None})
    inside = np.zeros((1200, 2400), dtype=np.uint8)
    inside[600:640, 1200:1240] = 255
    (tmp_path / "large.png").write_bytes(encode_png(np.full((1200, 2400, 3), 90, dtype=np.uint8)))
    (tmp_path / "spot.png").write_bytes(encode_png(inside))
    (source, _), (mask, _) = preview(override).rows[0].cells
    assert max(source.shape) <= 400
    assert (mask != source).any()


def output_of(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["inspect", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_the_command_draws_a_configs_tasks_a_files_and_a_runs(tmp_path: Path, own: Any) -> None:
    out, override = tmp_path / "sheet.png", own({}, {}, {"mask": "gone.png"})
    said = output_of("pocket", "--tasks", "2", "--data", "heldout", "--out", str(out))
    assert f"the first 2 of 300 usable tasks of data.heldout: {out}" in said
    said = output_of("pocket", "--tasks", "9", "--set", override, "--out", str(out))
    assert "the first 2 of 2 usable tasks of data.train" in said
    assert "task 't2'" in said
    assert Image.open(out).height > 2 * 128

    run = write_run(tmp_path / "run", updates=2, logged=0)
    assert "usable tasks of data.train" in output_of(str(run), "--tasks", "1", "--out", str(out))


def test_what_does_not_go_together_is_said() -> None:
    assert "rc-grpo inspect pocket --tasks 12" in output_of("pocket", code=2).replace("\n", " ")
    assert "--tasks" in output_of("pocket", "--set", "seed=1", code=2)
    assert "no config file 'nowhere'" in output_of("nowhere", "--tasks", "1", code=2)


def test_an_instruction_longer_than_the_sheet_is_wide_is_wrapped(own: Any) -> None:
    def height(instruction: str) -> int:
        config = load_config("pocket", (own({"instruction": instruction}), ABSENT))
        return contact_sheet(Preview.of(config, "train", 1).rows).height

    assert height("Add a cat and a dog " * 20) > height("Add a cat")
