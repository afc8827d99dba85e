import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from deploy.cli import app
from rc_grpo.config import load
from rc_grpo.pocket.world import PocketWorld
from tests.unit.deploy.report.folders import write_run

runner = CliRunner()


def output_of(*arguments: str, code: int = 0) -> str:
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


def test_help_does_not_wait_for_torch() -> None:
    asked = "import deploy.cli, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], timeout=60, check=False).returncode == 0


def test_config_prints_what_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(output_of("config", "pocket", "--set", "rollout.steps=3"))
    assert load(path).rollout.steps == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "nowhere"), "no config file 'nowhere'"),
        (("train", "x" * 5000), "no config file 'xxx"),
        (("config", "name: a\0"), "no config file"),
        (("train", "pocket", "--set", "rollout.stepz=3"), "rollout.stepz"),
        (("train", "pocket", "--set", "editor.model=no/such"), "no/such"),
        (("train", "pocket", "--set", "rollout.acd.layers=[9]"), "layers 0..5"),
        (("train", "pocket", "--set", "learner.start_from=/nowhere"), "no LoRA at /nowhere"),
        (("train", "pocket", "--rollout-only", "--set", "learner.start_from=a"), "learner.start_from is for learning"),
        (("train", "pocket_vllm", "--set", "reward.judges.editscore.model=judges/none"), "rc-grpo merge-judge"),
        (("evaluate", "pocket", "--set", "evaluation.tasks=0"), "data.heldout"),
        (("evaluate", "pocket", "--pipeline", "x"), "add --compbench FOLDER"),
        (("evaluate", "pocket", "--strength", "0.5"), "add --compbench FOLDER"),
        (("evaluate", "pocket", "--compbench", "b", "--steps", "9"), "--steps is of a --pipeline"),
        (("evaluate", "pocket", "--compbench", "b", "--pipeline", "x", "--lora", "y"), "--lora and --pipeline name"),
        (("evaluate", "pocket", "--compbench", "b", "--edits", "x", "--no-edit"), "--no-edit and --edits name"),
        (("evaluate", "pocket", "--compbench", "b", "--pipeline", "pocket", "--guidance", "nan"), "--guidance: Input"),
        (("evaluate", "pocket", "--compbench", "b", "--pipeline", "pocket", "--steps", "0"), "--steps: Input should"),
        (("evaluate", "pocket", "--compbench", "b", "--pipeline", "no/such"), "'no/such' cannot be loaded"),
        (("inspect", "/nowhere"), "holds no experience"),
        (("replay", "/nowhere", "1/a"), "no run at /nowhere"),
        (("train", "--resume", "/nowhere"), "is no run's folder"),
        (("train",), "name either a config or"),
        (("status", "--run", "nowhere"), "nowhere is not running"),
        (("scale", "rollout", "2", "--run", "nowhere"), "nowhere is not running"),
        (("edit", "/nowhere.png", "Add a cat"), "no image at /nowhere.png"),
    ],
)
def test_what_the_user_can_mend_is_said_without_a_traceback(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not whatever other Ray is on this machine.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    output = output_of(*arguments, code=2)
    assert says in output.replace("\n", "")
    assert "Traceback" not in output


def test_an_empty_data_set_and_an_empty_mask_fail_before_ray_starts(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    source = f"data.train={{format: jsonl, path: {tmp_path}/empty.jsonl}}"
    assert "empty.jsonl" in output_of("train", "pocket", "--set", source, code=2).replace("\n", "")
    Image.new("RGB", (64, 64), "green").save(tmp_path / "s.png")
    Image.new("L", (64, 64), 0).save(tmp_path / "m.png")
    (tmp_path / "bad.jsonl").write_text(
        '{"task_id": "task-9", "source": "s.png", "mask": "m.png", "instruction": "Add a cat"}\n'
    )
    output = output_of("train", "pocket", "--set", f"data.train={{format: jsonl, path: {tmp_path}/bad.jsonl}}", code=2)
    assert "task-9" in output
    assert "mask" in output


def test_a_run_of_that_name_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    output = output_of("train", "pocket", "--set", "name=taken", "--set", f"output.root={tmp_path}", code=2)
    assert "choose another name" in output.replace("\n", " ")


def test_status_without_a_cluster_lists_the_runs_it_finds_and_where_each_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    write_run(tmp_path / "ended", updates=2, logged=0)
    write_run(tmp_path / "cut-off", updates=2, logged=0, finished=False)
    (tmp_path / "no-run").mkdir()
    output = output_of("status", "--root", str(tmp_path)).replace("\n", " ")
    assert f"{tmp_path}/ended is finished: 2 updates" in output
    assert f"{tmp_path}/cut-off is not running, and has no checkpoint yet" in output
    assert "no-run" not in output
    assert "no Ray cluster answers" in output_of("status", "--root", str(tmp_path / "no-run"), code=2)


def test_edit_writes_the_edit_and_a_side_by_side_sheet(tmp_path: Path) -> None:
    task = PocketWorld("heldout", 3)[0]
    (tmp_path / "in.png").write_bytes(task.source)
    output_of("edit", str(tmp_path / "in.png"), task.instruction, "--out", str(tmp_path / "out.png"), "--steps", "2")
    sheet, edited = Image.open(tmp_path / "out.png"), Image.open(tmp_path / "out-edited.png")
    assert edited.size == (128, 128)
    assert sheet.width > 2 * 128
    assert np.asarray(edited).std() > 5
