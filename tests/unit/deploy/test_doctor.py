"""What the doctor says of a healthy editor, and that it finds what was done to a sick one."""

import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from deploy.checking.finding import Finding
from deploy.configs import load_config
from deploy.doctor import checks, examination
from deploy.doctor.examination import examine, show_examination
from rc_grpo.config import RunConfig
from rc_grpo.editor import denoiser
from rc_grpo.editor.families.flux2_klein.codec import KleinCodec
from rc_grpo.editor.families.flux2_klein.transformer import KleinBody, KleinBound
from rc_grpo.editor.families.qwen_image_21.transformer import Qwen21Bound
from rc_grpo.editor.family import Forward
from rc_grpo.editor.prefix import Prefix
from rc_grpo.messages import Conditions
from reward_service import probing
from reward_service.judge import Verdict
from tests.families import ATTENTION, KLEIN, QWEN, QWEN_21, Row

PICTURE = "picture at guidance 4"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for row in (KLEIN, QWEN, QWEN_21):
        assert row.make is not None
        row.make(folder / row.name)
    return folder


def configured(models: Path, row: Row = KLEIN, *more: str) -> RunConfig:
    editor = row.editor(models).model_dump(mode="json") | {"text_tokens": 2 * row.text_tokens, "guidance": 4.0}
    acd = f"{{layers: 0.5, direction: {'to_text' if row is QWEN_21 else 'from_text'}}}"
    small = (f"rollout={{group_size: 4, steps: 3, acd: {acd}}}", f"editor={json.dumps(editor)}")
    return load_config("pocket", (*small, "objective.anchors=2", *more))


def found(config: RunConfig) -> dict[str, Finding]:
    return {item.subject: item for item in examine(config, steps=3)}


def first(config: RunConfig, subject: str) -> Finding:
    """What is found of it; nothing behind it is looked at."""
    return next(item for item in examine(config, steps=3) if item.subject == subject)


@pytest.mark.parametrize("row", [KLEIN, QWEN, QWEN_21], ids=lambda row: row.name)
def test_a_healthy_editor_makes_the_stock_pipelines_picture_to_the_bit(models: Path, row: Row) -> None:
    said = found(configured(models, row, "evaluation.guidance=1"))
    assert {item.state for item in said.values()} == {"fine", "note"}
    for guidance in ("1", "4"):
        picture = said[f"picture at guidance {guidance}"]
        assert picture.figures == {"max_abs": 0.0, "equal_share": 1.0}
    assert said["recorder"].figures["max_abs"] == 0
    assert said["ratio on policy"].figures["max_abs_log_ratio"] < 1e-4
    assert said["LoRA"].figures["blocks_without"] == 0
    assert "needs a GPU" in said["float8"].said
    assert said["reward.judges.ground_truth"].figures["target"] > 0.9


@pytest.mark.parametrize("row", [KLEIN, QWEN, QWEN_21], ids=lambda row: row.name)
def test_in_bfloat16_the_pictures_differ_by_the_rounding_of_their_pixels_alone(models: Path, row: Row) -> None:
    """A step between two levels is small: what bfloat16 leaves of it is no velocity."""
    config = configured(models, row, "editor.dtype=bfloat16", "evaluation.guidance=1")
    said = [item for item in examine(config, steps=8) if item.subject.startswith("picture at")]
    assert [item.state for item in said] == ["fine", "fine"]
    assert all(item.figures["max_abs"] <= 1 for item in said)


def test_a_card_never_has_to_hold_more_than_a_rollout_workers_and_a_learners_copy(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
    most = []

    def counted(name: str, transformer_of: Callable[[Any], torch.nn.Module]) -> None:
        load = getattr(examination, name)

        def loading(*arguments: Any) -> Any:
            model = load(*arguments)
            there.add(transformer_of(model))
            most.append(len(there))
            return model

        monkeypatch.setattr(examination, name, loading)

    counted("load_pipeline", lambda pipeline: pipeline.transformer)  # type: ignore[no-any-return]
    for name in ("load_rollout_editor", "load_denoiser"):
        counted(name, lambda editor: editor.body.transformer)  # type: ignore[no-any-return]
    found(configured(models))
    assert most == [1, 1, 2]


@pytest.fixture
def sick(models: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunConfig, pytest.MonkeyPatch]:
    return configured(models), monkeypatch


def test_a_velocity_of_the_other_sign_is_found(sick: tuple[RunConfig, pytest.MonkeyPatch]) -> None:
    config, monkeypatch = sick
    healthy = KleinBound.__call__
    monkeypatch.setattr(KleinBound, "__call__", lambda *arguments: -healthy(*arguments))
    picture = first(config, PICTURE)
    assert picture.state == "fault"
    assert "opposite sign" in picture.said


def test_a_schedule_that_is_not_the_pipelines_is_found(sick: tuple[RunConfig, pytest.MonkeyPatch]) -> None:
    """Ordinary sampling through the training code that came out blurred, elsewhere."""
    config, monkeypatch = sick
    even = lambda self, steps, conditions: torch.linspace(1, 0, steps + 1, dtype=torch.float64)  # noqa: E731
    monkeypatch.setattr(KleinBody, "sigmas", even)
    picture = first(config, PICTURE)
    assert picture.state == "fault"
    assert "its schedule is 1.0000, 0.6667, 0.3333, 0.0000, the stock pipeline's 1.0000, 0." in picture.said


def test_padding_that_the_pipeline_attends_and_the_training_side_does_not_is_found(
    sick: tuple[RunConfig, pytest.MonkeyPatch],
) -> None:
    config, monkeypatch = sick
    healthy = KleinCodec.encode_image

    def cut(self: KleinCodec, source: Any, instruction: str) -> Conditions:
        conditions = healthy(self, source, instruction)
        last = int(np.flatnonzero(conditions.text_valid)[-1]) + 1
        arrays = dict(conditions.arrays) | {"prompt": conditions.arrays["prompt"][:last]}
        return Conditions(conditions.height, conditions.width, arrays, conditions.text_valid[:last])

    monkeypatch.setattr(KleinCodec, "encode_image", cut)
    picture = first(config, PICTURE)
    assert picture.state == "fault"
    assert "text (template, padding, length)" in picture.said


def test_guidance_that_is_asked_for_and_not_run_is_found(sick: tuple[RunConfig, pytest.MonkeyPatch]) -> None:
    config, monkeypatch = sick
    monkeypatch.setattr(denoiser, "is_two_passes", lambda guidance, scale: False)
    assert first(config, PICTURE).state == "fault"


def test_targets_that_bind_nothing_or_leave_blocks_without_a_lora_are_said_by_name(models: Path) -> None:
    nothing = found(configured(models, KLEIN, "editor.lora.targets=[attn.to_q, attn.to_out_0]"))
    assert list(nothing) == ["editor"]
    assert "names 'attn.to_out_0', which is none of this editor's projections" in nothing["editor"].said
    double = first(configured(models, KLEIN, f"editor.lora.targets=[{', '.join(ATTENTION)}]"), "LoRA")
    assert double.state == "note"
    assert "blocks without any: 2 single_transformer_blocks" in double.said


def test_a_recorder_that_changes_the_velocity_is_found(sick: tuple[RunConfig, pytest.MonkeyPatch]) -> None:
    config, monkeypatch = sick
    healthy = KleinBody.processor

    def processor(self: KleinBody, block: Any, probe: Any) -> Any:
        attend = healthy(self, block, probe)
        if probe is None or not hasattr(block.attn, "to_qkv_mlp_proj"):
            return attend

        class Meddling(type(attend)):  # type: ignore[misc]
            def __call__(self, *arguments: Any, **options: Any) -> Any:
                return super().__call__(*arguments, **options) * 1.001

        return Meddling(probe)

    monkeypatch.setattr(KleinBody, "processor", processor)
    assert first(config, "recorder").state == "fault"


def test_a_prefix_that_is_not_what_whole_passes_compute_is_found(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(models, QWEN_21, "editor.prefix=shared")
    healthy = first(config, "prefix")
    assert healthy.state == "fine"
    assert healthy.figures["relative_difference"] < 1e-5
    prefill = Qwen21Bound.prefill

    def stale(self: Qwen21Bound, forward: Forward) -> Prefix:
        kept = prefill(self, forward)
        return replace(kept, keys=tuple(keys.flip(1) for keys in kept.keys))

    monkeypatch.setattr(Qwen21Bound, "prefill", stale)
    assert first(config, "prefix").state == "fault"


def test_a_learner_that_is_another_model_than_the_rollouts_is_found(
    sick: tuple[RunConfig, pytest.MonkeyPatch],
) -> None:
    config, monkeypatch = sick
    healthy = examination.load_denoiser

    def other(editor: Any, seed: int) -> Any:
        learner = healthy(editor, seed)
        with torch.no_grad():
            for weight in learner.transformer.proj_out.parameters():
                weight.mul_(4.0)
        return learner

    monkeypatch.setattr(examination, "load_denoiser", other)
    assert first(config, "ratio on policy").state != "fine"


def test_float8_is_looked_at_on_an_editor_loaded_for_it_beside_one_that_is_not(
    sick: tuple[RunConfig, pytest.MonkeyPatch],
) -> None:
    """What a GPU's float8 does is not asked here: both are float32's."""
    config, monkeypatch = sick
    loaded: list[bool] = []
    healthy = checks.load_rollout_editor

    def load(editor: Any, rollout: Any, seed: int) -> Any:
        loaded.append(rollout.fp8)
        return healthy(editor, rollout.model_copy(update={"fp8": False}), seed)

    monkeypatch.setattr(checks, "load_rollout_editor", load)
    monkeypatch.setattr(checks.fp8, "check", lambda device, dtype: None)
    ranks = first(config, "float8")
    assert loaded == [False, True]
    assert ranks.state == "fine"
    assert ranks.figures["rank_correlation"] == pytest.approx(1.0)


def test_a_judge_that_likes_the_untouched_source_better_is_found(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Contrary:
        def score(self, task: Any, images: Any) -> list[Verdict]:
            return [Verdict(0.2), Verdict(0.7)]

    monkeypatch.setattr(probing, "make_judge", lambda *arguments: Contrary())
    judge = found(configured(models))["reward.judges.ground_truth"]
    assert (judge.state, judge.figures) == ("fault", {"target": 0.2, "source": 0.7})


def test_it_leaves_a_table_json_and_whether_a_run_may_start(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Finding("editor", "fine", "well"), Finding("picture", "fault", "blurred", {"max_abs": 90.0})]
    monkeypatch.setattr(examination, "examine", lambda *arguments, **options: iter(items))
    console, options = Console(record=True), {"steps": 3, "start_servers": False}
    well = show_examination(configured(models), console, tmp_path / "a.json", machine_readable=False, **options)  # type: ignore[arg-type]
    assert not well
    assert "1 in the way" in console.export_text()
    written = json.loads((tmp_path / "a.json").read_text())
    assert (written["ready"], written["findings"][1]["figures"]) == (False, {"max_abs": 90.0})
