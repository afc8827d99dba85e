"""``rc-grpo check`` says every fault before anything starts, and `train` refuses to start in vain."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image
from typer.testing import CliRunner

from deploy.checking import places
from deploy.cli import app
from deploy.configs import load_config
from deploy.evaluating.preflight import check_judges
from rc_grpo.config import ConfigError
from tests.unit.reward.beside import served_beside
from tests.unit.reward.chat_server import marks, refusal, texts

runner = CliRunner()
Row = dict[str, Any]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a user's own images and rows; return the setting that trains on them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    Image.new("RGB", (64, 48), "green").save("source.png")
    Image.new("L", (64, 48), 0).save("empty.png")
    mask = Image.new("L", (64, 48), 0)
    mask.paste(255, (8, 8, 40, 40))
    mask.save("mask.png")

    def written(*rows: Row, branch: str = "train") -> str:
        usual = {"source": "source.png", "mask": "mask.png", "instruction": "Add a large cat in the top left"}
        lines = [json.dumps(usual | {"task_id": f"own-{index}"} | row) for index, row in enumerate(rows)]
        (tmp_path / f"{branch}.jsonl").write_text("\n".join(lines) + "\n")
        return f"data.{branch}={{format: jsonl, path: {branch}.jsonl}}"

    return written


def checked(*settings: str, code: int = 0) -> list[dict[str, str]]:
    options = [part for setting in ("evaluation.tasks=0", *settings) for part in ("--set", setting)]
    result = runner.invoke(app, ["check", "pocket", "--json", *options])
    assert result.exit_code == code, result.output
    found = json.loads(result.stdout)
    assert found["ready"] == (code == 0)
    return list(found["findings"])


def faults(findings: list[dict[str, str]]) -> list[str]:
    return [f"{item['subject']}: {item['said']}" for item in findings if item["state"] == "fault"]


def judged_by(url: str, kind: str = "editscore, family: qwen2_5_vl") -> str:
    patience = "reach_deadline_s: 0.3, probe_deadline_s: 2"
    return (
        f"reward.judges={{mine: {{kind: {kind}, model: judge, urls: ['{url}'], "
        f"server: {{{patience}}}, client: {{tries: 1}}, resources: {{num_cpus: 0.25}}}}}}"
    )


def test_a_configuration_with_nothing_in_the_way_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    findings = checked("data.train.limit=3")
    subjects = {item["subject"] for item in findings}
    assert {
        "editor",
        "data.train",
        "reward.judges.ground_truth",
        "output.root",
        "disk",
        "cluster",
        "memory",
    } <= subjects
    assert any("3 tasks" in item["said"] for item in findings)
    assert any(item["said"].endswith("it says: 0.000") for item in findings), "the untouched source is no edit"
    assert not (tmp_path / "runs").exists()


def test_every_bad_task_is_named_and_not_the_first_alone(own: Callable[..., str]) -> None:
    rows = [
        {"target": "source.png"},
        {"mask": "empty.png"},
        {"instruction": ["Add", "a cat"]},
        {"source": "gone.png"},
        {"instruction": "very " * 40 + "long"},
    ]
    found = faults(checked(own(*rows), code=2))
    for task, reason in (("own-1", "mask"), ("own-2", "instruction"), ("own-3", "gone.png"), ("own-4", "tokens")):
        assert [said for said in found if task in said and reason in said], (task, found)
    assert not [said for said in found if "own-0" in said]


def test_own_images_without_targets_are_refused_with_two_ways_out(own: Callable[..., str]) -> None:
    setting = own(*[{}] * 6)
    said, *_ = faults(checked(setting, code=2))
    assert said.startswith("data.train: judge 'ground_truth'")
    assert "kind: editscore" in said
    assert "columns" in said
    started = time.monotonic()
    refused = runner.invoke(app, ["train", "pocket", "--set", setting, "--set", "evaluation.tasks=0"])
    assert refused.exit_code == 2
    assert "kind: editscore" in refused.stderr.replace("\n", " ")
    assert time.monotonic() - started < 30
    assert not Path("runs/pocket").exists()


def test_masks_worth_a_look_are_told_and_refuse_nothing(own: Callable[..., str]) -> None:
    Image.new("L", (64, 48), 255).save("whole.png")
    dot = Image.new("L", (64, 48), 0)
    dot.putpixel((5, 5), 255)
    dot.save("dot.png")
    target = {"target": "source.png"}
    rows = ({"mask": "whole.png"} | target, {"mask": "dot.png"} | target, target)
    notes = [item["said"] for item in checked(own(*rows)) if item["state"] == "note"]
    assert [said for said in notes if "whole image" in said and "own-0" in said]
    assert [said for said in notes if "less than one token" in said and "own-1" in said]


def test_held_out_tasks_that_are_trained_on_are_told(own: Callable[..., str]) -> None:
    row = {"target": "source.png"}
    findings = checked(own(row, row), own(row, branch="heldout"), "evaluation.tasks=1")
    assert [item for item in findings if "id of a training task (own-0)" in item["said"]]


def test_a_judge_s_answer_to_a_real_question_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        return texts(marks(3, 21, "Nothing was [red]added[/red]."))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    with served_beside(reply) as server:
        findings = checked("data.train.limit=3", judged_by(server.url))
        assert [item for item in findings if "Nothing was [red]added[/red]." in item["said"]]
        (asked,) = server.requests
        content = json.dumps(asked["messages"])
        assert content.count("data:image/") == 2


def test_a_judge_that_compares_is_asked_about_the_source_beside_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first(_: dict[str, Any]) -> web.Response:
        return texts(json.dumps({"winner": "Image A"}))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    with served_beside(first) as server:
        findings = checked("data.train.limit=3", judged_by(server.url, "pairwise"))
        assert [item for item in findings if item["said"].endswith("beside its negative it says: 0.500")]
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("reward.judges={p: {kind: pairwise, model: m, urls: ['http://h:1/v1']}}",), "or set evaluation.tasks=0"),
        (
            ("reward.judges.p={kind: pairwise, model: m, urls: ['http://h:1/v1']}", "evaluation.measured_by=p"),
            "which compares the candidates of a group with each other",
        ),
    ],
)
def test_evaluations_that_only_a_judge_that_compares_could_measure_are_refused(
    settings: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_judges(load_config("pocket", settings))


def test_a_judge_that_compares_may_stand_beside_one_that_measures_or_where_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    judge = "p: {kind: pairwise, model: m, urls: ['http://h:1/v1']}"
    check_judges(load_config("pocket", [f"reward.judges={{{judge}, truth: {{kind: ground_truth, weight: 0}}}}"]))
    check_judges(load_config("pocket", [f"reward.judges={{{judge}}}", "evaluation.tasks=0"]))


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_judge_that_nobody_serves_is_refused_in_seconds(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    settings = (judged_by("http://127.0.0.1:1/v1"), "evaluation.tasks=0", "data.train.limit=3")
    options = [part for setting in settings for part in ("--set", setting)]
    result = runner.invoke(app, [command, "pocket", *options])
    assert result.exit_code == 2
    assert "refused" in result.output.replace("\n", " ").lower()
    assert not (tmp_path / "runs" / "pocket").exists()


def test_a_judge_that_refuses_two_images_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(400, "At most 1 image(s) may be provided in one prompt.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    with served_beside(reply) as server:
        (said,) = faults(checked("data.train.limit=3", judged_by(server.url), code=2))
    assert "At most 1 image(s)" in said


def test_places_that_cannot_be_written_and_a_folder_that_is_taken_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (said,) = faults(checked("data.train.limit=3", f"output.root={tmp_path}/file/runs", code=2))
    assert f"{tmp_path}/file is no folder" in said
    (tmp_path / "runs" / "pocket").mkdir(parents=True)
    (said,) = faults(checked("data.train.limit=3", code=2))
    assert "choose another name" in said
    monkeypatch.setattr(os, "access", lambda *_: False)
    (said,) = faults(checked("data.train.limit=3", "name=other", code=2))
    assert "may not be written" in said


def test_a_run_that_the_disk_has_no_room_for_is_told_with_what_takes_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    full = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: full)
    (note,) = [item for item in checked("data.train.limit=3") if item["subject"] == "disk"]
    assert note["state"] == "note"
    assert "most of it experience" in note["said"]
    assert "output.experience" in note["said"]


def test_more_actors_than_the_machine_has_room_for_are_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (said,) = faults(checked("data.train.limit=3", "cluster.cpus=2", "rollout.workers=64", code=2))
    assert "rollout" in said
    assert "64 x" in said


def test_the_table_shows_what_the_json_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = runner.invoke(app, ["check", "pocket", "--set", "evaluation.tasks=0", "--set", "data.train.limit=3"])
    assert shown.exit_code == 0
    assert "nothing is in the way of this run" in shown.output
    for subject in ("editor", "data.train", "reward.judges", "memory"):
        assert subject in shown.output
