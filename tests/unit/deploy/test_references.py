"""Tasks with references from the command line's side: checked, planned, examined, edited, drawn, and given masks."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deploy.checking.data import check_data
from deploy.cli import app
from deploy.configs import load_config
from deploy.doctor import examination
from deploy.doctor.examination import examine
from deploy.doctor.stock import stock_edit
from deploy.evaluating.edit import edit_image
from deploy.evaluating.tasks import InstructionCheck, training_tasks
from deploy.planning.capacity import make_plan
from deploy.records.contact_sheet import task_row
from deploy.records.data import changes_of_task, fingerprints, keep
from deploy.records.folder import RunFolder
from deploy.report.groups import _ALT
from rc_grpo.config import EditorConfig, RunConfig, TaskSource
from rc_grpo.data import DataError, load_tasks
from rc_grpo.editor.loading import check_model, load_architecture
from rc_grpo.images import decode_rgb, encode_png
from rc_grpo.pocket.world import PocketWorld
from tests.families import ATTENTION, KLEIN, source

TASKS = PocketWorld("train", 3)
SMALL, WIDE = encode_png(source(64, 64)), encode_png(255 - source(64, 128))
Write = Callable[..., Path]


@pytest.fixture
def own(tmp_path: Path) -> Write:
    """Write tasks of one's own, each with so many references, and return their path."""

    def write(*counts: int) -> Path:
        for name, data in (("small.png", SMALL), ("wide.png", WIDE)):
            (tmp_path / name).write_bytes(data)
        rows = []
        for number, count in enumerate(counts):
            task, row = TASKS[number], {"task_id": f"t{number}", "instruction": TASKS[number].instruction}
            for name in ("source", "mask", "target"):
                (tmp_path / f"{name}{number}.png").write_bytes(getattr(task, name))
                row[name] = f"{name}{number}.png"
            rows.append(row | {"references": ["wide.png", "small.png", "wide.png"][:count]})
        path = tmp_path / "tasks.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def config(path: Path, *overrides: str, name: str = "pocket_klein") -> RunConfig:
    data = f"data.train={{format: jsonl, path: {path}}}"
    return load_config(name, (data, "data.heldout=null", "evaluation.tasks=0", *overrides))


def test_more_than_the_editor_is_to_take_are_a_bad_task_with_the_way_out(own: Write) -> None:
    path = own(0, 2)
    with pytest.raises(DataError, match=r"'t1' .*line 2\): .* 3 source .* editor\.sources is 1; set editor\.sources=3"):
        training_tasks(config(path))
    assert [len(task.references) for task in training_tasks(config(path, "editor.sources=3"))] == [0, 2]
    assert len(training_tasks(config(path, "data.train.on_bad_task=skip"))) == 1


def test_a_family_of_one_source_takes_one(own: Write) -> None:
    path = own(1)
    with pytest.raises(DataError, match=r"'t0' .* 2 source images .* pocket is of a family that takes 1 at most"):
        training_tasks(config(path, name="pocket"))
    several = config(path, "editor.sources=2", name="pocket")
    with pytest.raises(ValueError, match=r"editor\.sources is 2, and pocket is of a family that takes 1 at most"):
        check_model(several.editor, several.rollout.acd)
    assert InstructionCheck(several.editor)("Add a cat", 2) is None, "what is wrong is said of the configuration, once"


def test_a_check_says_that_judges_are_not_shown_them(own: Write) -> None:
    said = [item.said for item in check_data(config(own(0, 1, 2), "editor.sources=4"))]
    assert any(line.startswith("2 of 3 tasks have references: the editor sees them; judges") for line in said)
    assert not any("references" in item.said for item in check_data(config(own(0, 0))))


@pytest.mark.parametrize(
    ("name", "text", "of_a_source", "more_text"),
    [("flux2_klein_4b", 512, 1024, 0), ("qwen_image_edit_2511", 240, 4096, 203), ("qwen_image_21", 48, 1024, 6)],
)
def test_lengths_and_time_are_planned_for_as_many_as_a_task_may_have(
    name: str, text: int, of_a_source: int, more_text: int
) -> None:
    def editor(sources: int) -> EditorConfig:
        base = load_config(name, ("editor.resolution=512",)).editor
        model = {"flux2_klein_4b": "klein-4b", "qwen_image_edit_2511": "qwen-image-edit"}.get(name, "qwen-image-21")
        return base.model_copy(update={"sources": sources, "model": f"full-size-{model}"})

    one, three = (load_architecture(editor(count)).tokens(editor(count)) for count in (1, 3))
    assert (one.text, one.target, one.sources) == (text, 1024, of_a_source)
    assert (three.text, three.target, three.sources) == (text + 2 * more_text, 1024, 3 * of_a_source)
    plans = [
        make_plan(load_config(name, (f"editor={json.dumps(editor(count).model_dump(mode='json'))}",)), 8, "H200")
        for count in (1, 3)
    ]
    assert plans[1].seconds > plans[0].seconds
    for pool in ("rollout", "learner"):
        memory = [next(one.memory_gib for one in plan.pools if one.name == pool) for plan in plans]
        assert memory[1] > memory[0]
    notes = [[note for note in plan.warnings if "sources" in note] for plan in plans]
    assert notes[0] == []
    assert notes[1][0].startswith("every task is taken to have 3 sources; with one an update would take ")


def test_a_run_whose_references_changed_is_told(own: Write, tmp_path: Path) -> None:
    path = own(0, 2)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    load = lambda: load_tasks(TaskSource(format="jsonl", path=path))  # noqa: E731
    keep(run, fingerprints(run, load(), (), resume=False))
    assert changes_of_task(run, load(), "t1") == []
    (tmp_path / "wide.png").write_bytes(SMALL)
    assert changes_of_task(run, load(), "t1") == ["references"]
    assert changes_of_task(run, load(), "t0") == []


def test_they_are_drawn_behind_the_source_in_their_own_proportions() -> None:
    task = replace(TASKS[0], references=(WIDE, SMALL))
    height, width = decode_rgb(task.source).shape[:2]
    row = task_row(task, [(np.zeros((height, width, 3), np.uint8), "edit")])
    assert [label for _, label in row.cells] == ["source", "source 2", "source 3", "mask", "target", "edit"]
    assert row.cells[1][0].shape[1] == 2 * row.cells[1][0].shape[0]
    assert [label for _, label in task_row(TASKS[0]).cells] == list(_ALT)


def test_masks_are_made_beside_them(own: Write, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["masks", str(own(2, 0)), "--by", "difference", "--out", str(tmp_path / "masked")])
    assert done.exit_code == 0, done.output
    tasks = load_tasks(TaskSource(format="parquet", path=tmp_path / "masked"))
    assert [task.references for task in tasks] == [(WIDE, SMALL), ()]


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> EditorConfig:
    folder = tmp_path_factory.mktemp("models")
    assert KLEIN.make is not None
    KLEIN.make(folder / KLEIN.name)
    return KLEIN.editor(folder).model_copy(update={"text_tokens": 192, "sources": 3, "resolution": 96})


def test_a_doctor_takes_a_task_that_has_some_and_finds_the_stock_pipelines_picture(
    own: Write, klein: EditorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[int] = []

    def watched(pipeline: Any, editor: Any, source: Any, instruction: str, *references: Any, **options: Any) -> Any:
        shown.append(len(references))
        return stock_edit(pipeline, editor, source, instruction, *references, **options)

    monkeypatch.setattr(examination, "stock_edit", watched)
    editor = klein.model_dump(mode="json") | {"lora": {"rank": 4, "alpha": 8, "targets": ATTENTION}}
    small = (f"editor={json.dumps(editor)}", "rollout={group_size: 4, steps: 3, acd: {layers: 0.5}}")
    asked = config(own(0, 2), *small, "objective.anchors=2", name="pocket")
    picture = next(item for item in examine(asked, steps=3) if item.subject.startswith("picture at"))
    assert picture.figures["max_abs"] == 0.0
    assert shown == [2]


def test_one_edit_takes_them_by_file_and_says_what_is_too_many(klein: EditorConfig, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path, data in zip(paths, (SMALL, WIDE), strict=True):
        path.write_bytes(data)
    edits = []
    for references in ([], [paths[1]], paths):
        edited, sheet = edit_image(klein, paths[0], "Add a cat", None, steps=2, seed=0, references=references)
        edits.append(np.asarray(edited))
    assert isinstance(sheet, Image.Image)
    assert all((edits[0] != other).any() for other in edits[1:])
    with pytest.raises(ValueError, match=r"4 source images .* editor\.sources is 3; set editor\.sources=4"):
        edit_image(klein, paths[0], "Add a cat", None, steps=2, seed=0, references=paths[:1] * 3)
    with pytest.raises(ValueError, match=r"no image at .*gone\.png"):
        edit_image(klein, paths[0], "Add a cat", None, steps=2, seed=0, references=[tmp_path / "gone.png"])
