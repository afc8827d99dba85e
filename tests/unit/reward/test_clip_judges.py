"""Judges by CLIP, with a real model of random weights: directions, cosines, a group at once, safetensors alone."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from benchmarks.tiny_clip import save_tiny_clip
from rc_grpo.config import parse_judge
from rc_grpo.editor.geometry import resize_image
from rc_grpo.evaluation.clip import Clip
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld
from reward_service.factory import check_judge, make_judge
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.local.clip_judges import ClipDirectionJudge, PickScoreJudge

TASK: EditTask = replace(PocketWorld("train", 1)[0], caption="a red circle")
SOURCE = decode_rgb(TASK.source)
EDITS = np.random.default_rng(0).integers(0, 256, (3, *SOURCE.shape), dtype=np.uint8)
KINDS = ("clip_direction", "pickscore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def judged(kind: str, folder: Path, images: np.ndarray, task: EditTask = TASK, **more: Any) -> list[Verdict]:
    judge = make_judge("w", parse_judge({"kind": kind, "model": str(folder), **more}), Path())
    return list(judge.score(task, images))  # type: ignore[arg-type]


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_direction_is_that_of_the_edit_against_that_of_the_words(folder: Path) -> None:
    clip = Clip.load(str(folder))
    source, *edits = clip.images([SOURCE, *EDITS])
    said, asked = clip.texts(["a photo of nothing", "a red circle"])
    verdicts = judged("clip_direction", folder, EDITS, source_caption="a photo of nothing")
    for verdict, edit in zip(verdicts, edits, strict=True):
        assert verdict.reward == pytest.approx((1 + cosine(edit - source, asked - said)) / 2, abs=1e-5)


def test_an_untouched_source_has_no_direction_and_the_mark_between_both(folder: Path) -> None:
    untouched, touched = judged("clip_direction", folder, np.stack([SOURCE, EDITS[0]]))
    assert untouched.reward == 0.5
    assert touched.reward != 0.5


def test_a_caption_that_says_what_the_source_does_is_no_direction(folder: Path) -> None:
    verdicts = judged("clip_direction", folder, EDITS, source_caption="a red circle")
    assert [verdict.reward for verdict in verdicts] == [0.5] * 3


def test_pickscore_is_the_cosine_with_the_caption_and_the_mean_of_several(folder: Path) -> None:
    clip = Clip.load(str(folder))
    one, other = clip.texts(["a red circle", "a disc"])
    both = judged("pickscore", folder, EDITS, replace(TASK, caption="a red circle| |a disc"))
    for verdict, edit in zip(both, clip.images(list(EDITS)), strict=True):
        assert verdict.reward == pytest.approx((1 + (edit @ one + edit @ other) / 2) / 2, abs=1e-5)
        assert verdict.reason == f"cosine {2 * verdict.reward - 1:.4f}"


@pytest.mark.parametrize("kind", [ClipDirectionJudge, PickScoreJudge])
def test_a_group_goes_through_the_model_at_once(kind: Any) -> None:
    calls = []

    class Counting:
        def images(self, crops: list[np.ndarray]) -> np.ndarray:
            calls.append(len(crops))
            return np.eye(4)[: len(crops)]

        def texts(self, captions: list[str]) -> np.ndarray:
            return np.eye(4)[: len(captions)]

    judge = kind(Counting(), "a photo") if kind is ClipDirectionJudge else kind(Counting())
    assert len(judge.score(TASK, EDITS)) == 3
    assert calls in ([3], [4])


@pytest.mark.parametrize("caption", [None, "", " | "])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_without_a_caption_is_a_failure_and_no_zero(folder: Path, kind: str, caption: str | None) -> None:
    for verdict in judged(kind, folder, EDITS, replace(TASK, caption=caption)):
        assert math.isnan(verdict.reward)
        assert "has no caption" in (verdict.reason or "")


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_of_another_size_is_resized(folder: Path, kind: str) -> None:
    small = resize_image(EDITS[0], 32, 32)
    assert math.isfinite(judged(kind, folder, small[None])[0].reward)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_not_there_or_is_another_is_one_line(kind: str, folder: Path, tmp_path: Path) -> None:
    missing = parse_judge({"kind": kind, "model": str(tmp_path / "none")})
    for look in (lambda: check_judge("c", missing), lambda: make_judge("w", missing, Path())):
        with pytest.raises(JudgeSetupError, match=kind) as error:
            look()
        assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(JudgeSetupError, match="is a bert; a judge of kind"):
        check_judge("c", parse_judge({"kind": kind, "model": str(tmp_path)}))


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_weights_are_not_read(kind: str, folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(CLIPModel.from_pretrained(folder).state_dict(), pickled / "pytorch_model.bin")
    config = parse_judge({"kind": kind, "model": str(pickled)})
    with pytest.raises(JudgeSetupError, match="safetensors"):
        make_judge("w", config, Path())
    with pytest.raises(ValueError, match="safetensors"):
        check_judge("c", config)


def test_pickscore_takes_its_processor_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, bare / name)
    with pytest.raises(
        JudgeSetupError, match=r"pickscore .*processor.*tokenizer and image processor.*bare.*Name a folder"
    ):
        judged("pickscore", bare, EDITS)
    with pytest.raises(JudgeSetupError, match=r"tokenizer and image processor.*bare"):
        check_judge("c", parse_judge({"kind": "pickscore", "model": str(bare)}))
    check_judge("c", parse_judge({"kind": "pickscore", "model": str(bare), "processor": str(folder)}))
    apart = judged("pickscore", bare, EDITS, processor=str(folder))
    assert [verdict.reward for verdict in apart] == [verdict.reward for verdict in judged("pickscore", folder, EDITS)]
