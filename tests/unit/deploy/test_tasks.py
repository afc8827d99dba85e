"""What a task lacks, and an instruction that does not fit, is found before anything starts."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from deploy.configs import load_config
from deploy.evaluating.edit import edit_image
from deploy.evaluating.tasks import InstructionCheck, heldout_tasks, training_tasks
from rc_grpo.config import ConfigError, EditorConfig, RunConfig
from rc_grpo.data import DataError, faults
from rc_grpo.editor.family import TextLength
from rc_grpo.editor.loading import load_editor
from rc_grpo.images import decode_rgb
from rc_grpo.pocket.world import PocketWorld, phrases

TASK = PocketWorld("train", 1)[0]
LONG = "Add a small cat in the top left " * 20


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """Write tasks of one's own, each changed by one mapping, and return their path."""

    def write(*changes: dict[str, Any]) -> Path:
        for name, data in (("source.png", TASK.source), ("mask.png", TASK.mask), ("target.png", TASK.target)):
            (tmp_path / name).write_bytes(data or b"")
        good = {"source": "source.png", "mask": "mask.png", "instruction": "Add a cat"}
        path = tmp_path / "tasks.jsonl"
        path.write_text("".join(json.dumps(good | change) + "\n" for change in changes))
        return path

    return write


def config(path: Path, *overrides: str) -> RunConfig:
    source = f"{{format: jsonl, path: {path}}}"
    return load_config("pocket", (f"data.train={source}", f"data.heldout={source}", "evaluation.tasks=4", *overrides))


JUDGE = "reward.judges={j: {kind: editscore, model: m, family: qwen2_5_vl, urls: ['http://127.0.0.1:1/v1']}}"


@pytest.mark.parametrize("load", [training_tasks, heldout_tasks])
def test_tasks_without_targets_are_refused_with_two_ways_out_where_the_judge_needs_them(own: Any, load: Any) -> None:
    path = own(*[{}] * 3)
    branch = "data.train" if load is training_tasks else "data.heldout"
    with pytest.raises(
        ConfigError, match=r"needs the target of every task, and 3 of 3 in .*tasks\.jsonl have none"
    ) as e:
        load(config(path))
    assert "kind: editscore" in str(e.value)
    assert f"{branch}.columns: {{target: COLUMN}}" in str(e.value)
    assert "'tasks-000001'" in str(e.value)
    assert len(load(config(path, JUDGE))) == 3


def test_one_task_without_a_target_is_named_and_one_judge_of_two_is_enough(own: Any) -> None:
    path = own({"target": "target.png"}, {"target": None}, {"target": "target.png"})
    both = JUDGE.replace("{j:", "{ground_truth: {kind: ground_truth, weight: 0}, j:")
    with pytest.raises(ConfigError, match=r"judge 'ground_truth' .* 1 of 3 .*\('tasks-000002'\)"):
        training_tasks(config(path, both))
    assert len(training_tasks(config(path, both, "data.train.limit=1"))) == 1


def test_where_all_have_targets_or_scores_are_read_from_a_log_nothing_is_lacking(own: Any, tmp_path: Path) -> None:
    assert len(training_tasks(config(own({"target": "target.png"})))) == 1
    assert len(training_tasks(config(own({}), f"loop.feed={tmp_path}"))) == 1
    assert len(heldout_tasks(load_config("pocket"))) > 0


def test_an_instruction_that_is_too_long_is_a_bad_task_before_any_actor(own: Any) -> None:
    path = own({"target": "target.png"}, {"target": "target.png", "instruction": LONG})
    with pytest.raises(
        DataError, match=r"'tasks-000002' \(.*line 2\): the instruction has \d+ tokens and editor.text_tok"
    ):
        training_tasks(config(path))
    assert len(training_tasks(config(path, "data.train.on_bad_task=skip"))) == 1
    source = config(path).data.train
    (fault,) = faults(source, objection=InstructionCheck(config(path).editor))
    assert fault.task_id == "tasks-000002"


def test_pocket_instructions_that_do_not_fit_are_found_too() -> None:
    with pytest.raises(DataError, match="the pocket world's instructions: the instruction has"):
        training_tasks(load_config("pocket", ("editor.text_tokens=8", "data.train.limit=4")))


def test_the_pockets_phrases_are_at_least_as_long_as_its_tasks() -> None:
    world = PocketWorld("train", 60)
    longest = max(len(phrase.split()) for phrase in phrases())
    assert {len(world.scene(i).instruction.split()) for i in range(60)} <= set(range(longest + 1))
    assert any(len(world.scene(i).instruction.split()) == longest for i in range(60))


def test_what_is_counted_is_what_the_codec_takes() -> None:
    editor = load_config("pocket").editor
    check, codec = InstructionCheck(editor), load_editor(editor, seed=0)
    for words in range(1, 40, 3):
        instruction = " ".join(["cat"] * words)
        objection = check(instruction)
        if objection is None:
            valid = codec.encode_image(decode_rgb(TASK.source), instruction).text_valid
            assert valid.sum() == check._count(instruction).tokens
        else:
            with pytest.raises(ValueError, match=objection[:40]):
                codec.encode_image(decode_rgb(TASK.source), instruction)
    assert check("cat") is None
    assert check(" ".join(["cat"] * 39)) is not None


def test_a_prompt_of_which_one_encoder_reads_a_part_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    roomy = EditorConfig(model="pocket", text_tokens=512)
    check = InstructionCheck(roomy)
    with caplog.at_level(logging.WARNING):
        assert check("Add a cat") is None
        assert caplog.messages == []
        assert check(LONG) is None
        assert check(LONG + "!") is None
    (said,) = caplog.messages
    assert "CLIP's pooled prompt is of the first 77 of" in said


def test_a_length_is_objected_to_only_beyond_the_slots() -> None:
    assert TextLength(24, 24).objection is None
    assert TextLength(25, 24).objection == (
        "the instruction has 25 tokens and editor.text_tokens is 24; shorten it, or raise editor.text_tokens"
    )


@pytest.mark.parametrize(
    ("instruction", "said"), [(LONG, "the instruction has"), ("\u200b", "says nothing"), (" ", "empty")]
)
def test_an_edit_is_refused_rather_than_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instruction: str, said: str
) -> None:
    monkeypatch.setattr("deploy.evaluating.edit.load_pipeline", lambda *_: pytest.fail("loaded"))
    (tmp_path / "a.png").write_bytes(TASK.source)
    editor = load_config("pocket").editor
    with pytest.raises(ValueError, match=said):
        edit_image(editor, tmp_path / "a.png", instruction, None, steps=1, seed=0)


def test_a_photograph_is_edited_upright(tmp_path: Path) -> None:
    note = Image.Exif()
    note[0x0112] = 6
    Image.fromarray(decode_rgb(TASK.source)[:64]).save(tmp_path / "a.jpg", exif=note)
    editor = load_config("pocket").editor
    edited, _ = edit_image(editor, tmp_path / "a.jpg", "Add a cat", None, steps=1, seed=0)
    assert edited.height > edited.width
