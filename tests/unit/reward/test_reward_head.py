"""Regression heads: EditReward's layout really loaded, with random weights; every tensor bound."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from rc_grpo.config import RewardHeadConfig, parse_judge
from rc_grpo.images import decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket.world import PocketWorld
from reward_service.factory import check_judge, make_judge
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.local import making
from reward_service.local import reward_head_loading as loading
from reward_service.local.reward_head_prompts import DEFAULT, HeadPrompts
from reward_service.prompts import PromptError

from .tiny_reward_heads import TOKEN, a_head, backbone_state, make_reward_model

TASK: EditTask = PocketWorld("train", 1)[0]
SOURCE = decode_rgb(TASK.source)
EDITS = np.random.default_rng(0).integers(0, 256, (2, *SOURCE.shape), dtype=np.uint8)
PIXELS = 56 * 56


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward_model(tmp_path_factory.mktemp("head"), "qwen2_5_vl")


def configured(folder: Path, **more: Any) -> RewardHeadConfig:
    tree = {
        "kind": "reward_head",
        "model": str(folder),
        "backbone": str(folder.parent / "base"),
        "dtype": "float32",
        "image_pixels": PIXELS,
        **more,
    }
    found = parse_judge(tree)
    assert isinstance(found, RewardHeadConfig)
    return found


def judged(folder: Path, images: np.ndarray = EDITS, task: EditTask = TASK, **more: Any) -> list[Verdict]:
    return list(make_judge("w", configured(folder, **more), Path()).score(task, images))  # type: ignore[arg-type]


def by_hand(folder: Path, *, sequential: bool = True) -> list[list[float]]:
    """What each head says of each edit, one at a time, without the code under test."""
    base = folder.parent / "base"
    state = load_file(folder / "model.safetensors")
    processor = AutoProcessor.from_pretrained(base)
    processor.image_processor.size = {"shortest_edge": PIXELS, "longest_edge": PIXELS}
    processor.tokenizer.add_tokens([TOKEN], special_tokens=True)
    whole: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    whole.resize_token_embeddings(whole.get_input_embeddings().weight.shape[0] + 1, mean_resizing=False)
    whole.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("rm_head")})
    questions = [
        text.replace("{instruction}", TASK.instruction) for text in yaml.safe_load(DEFAULT.read_text())["questions"]
    ]
    marks = []
    for image in EDITS:
        row = []
        for number, question in enumerate(questions):
            content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            inputs = processor(
                text=[text], images=[[Image.fromarray(SOURCE), Image.fromarray(image)]], return_tensors="pt"
            )
            if sequential:
                inputs["position_ids"] = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
            head = a_head().eval()
            prefix = f"rm_heads.head_{number}."
            head.load_state_dict({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
            with torch.no_grad():
                hidden = whole.eval().model(**inputs).last_hidden_state[0]
                place = int((inputs["input_ids"][0] == len(processor.tokenizer) - 1).nonzero()[0, 0])
                row.append(float(head(hidden[place])[0]))
        marks.append(row)
    return marks


def test_the_number_is_each_heads_at_the_reward_token_pooled(model: Path) -> None:
    expected = by_hand(model)
    pools: dict[str, Callable[[list[float]], float]] = {"mean": lambda row: sum(row) / 2, "min": min, "sum": sum}
    for pooling, pool in pools.items():
        found = judged(model, pooling=pooling)
        assert [verdict.reward for verdict in found] == pytest.approx([pool(row) for row in expected], abs=1e-4)
    assert found[0].reason == "heads: " + ", ".join(f"{mark:.4f}" for mark in expected[0])


def test_image_tokens_may_have_their_place_in_the_picture(model: Path) -> None:
    spatial = [sum(row) / 2 for row in by_hand(model, sequential=False)]
    assert spatial != pytest.approx([sum(row) / 2 for row in by_hand(model)], abs=1e-6)


def test_an_instruction_that_holds_the_reward_token_is_read_at_ours_alone(model: Path) -> None:
    (verdict,) = judged(model, EDITS[:1], replace(TASK, instruction=f"write {TOKEN} on the wall"))
    assert math.isfinite(verdict.reward)


def test_names_of_older_transformers_bind_to_the_same_model(model: Path, tmp_path: Path) -> None:
    old = make_reward_model(tmp_path, "qwen2_5_vl", old_names=True)
    assert any(name.startswith("visual.") for name in load_file(old / "model.safetensors"))
    assert [verdict.reward for verdict in judged(old)] == [verdict.reward for verdict in judged(model)]


def test_qwen3_vl_is_a_backbone_too(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path, "qwen3_vl")
    check_judge("head", configured(folder))
    verdicts = judged(folder, image_pixels=64 * 64)
    assert all(math.isfinite(verdict.reward) for verdict in verdicts)
    assert verdicts[0].reward != verdicts[1].reward


def test_one_head_answers_all_questions(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path, "qwen2_5_vl", heads=1, single=True)
    (verdict,) = judged(folder, EDITS[:1])
    assert (verdict.reason or "").count(",") == 1


def test_as_many_questions_as_heads_are_wanted(model: Path, tmp_path: Path) -> None:
    (tmp_path / "three.yaml").write_text(yaml.safe_dump({"questions": [f"{{instruction}} {TOKEN}"] * 3}))
    with pytest.raises(JudgeSetupError, match="2 heads and its prompts have 3 questions"):
        judged(model, prompts=tmp_path / "three.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("rm_heads.head_0.0.weight"), "layer 0 of a regression head"),
        (lambda state: state.pop("rm_heads.head_1.3.weight"), "layer 3 of a regression head"),
        (lambda state: [state.pop(name) for name in list(state) if ".head_0." in name], r"heads \[1\]; one of them"),
        (lambda state: [state.pop(name) for name in list(state) if "rm_head" in name], "holds no regression head"),
        (lambda state: state.update({"rm_heads.other.weight": torch.ones(1)}), "no tensor of a regression head"),
        (lambda state: state.update({"model.visual.extra": torch.ones(1)}), "hold more than it: model.visual.extra"),
        (lambda state: state.pop("model.language_model.norm.weight"), "lack model.language_model.norm.weight"),
        (
            lambda state: state.update({"model.language_model.norm.weight": torch.ones(7)}),
            "norm.weight of another shape|do not fit",
        ),
        (
            lambda state: state.pop("model.language_model.embed_tokens.weight"),
            "hold no model.language_model.embed_tokens",
        ),
        (
            lambda state: state.update(
                {
                    "model.language_model.embed_tokens.weight": state["model.language_model.embed_tokens.weight"][
                        :-1
                    ].clone()
                }
            ),
            r"is number \d+ of the tokenizer, and the weights .* have \d+ embeddings",
        ),
    ],
)
def test_tensors_that_do_not_bind_are_named(
    model: Path, tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    state = load_file(model / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    config = configured(tmp_path, backbone=str(model.parent / "base"))
    with pytest.raises(JudgeSetupError, match=said) as error:
        make_judge("w", config, Path())
    assert "\n" not in str(error.value)


def test_what_is_missing_or_cut_off_is_said_before_anything_starts(model: Path, tmp_path: Path) -> None:
    check_judge("head", configured(model))
    with pytest.raises(JudgeSetupError, match="neither a model"):
        check_judge("head", configured(model, backbone=str(tmp_path / "none")))
    whole = (model / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ValueError, match="its header says"):
        check_judge("head", configured(tmp_path, backbone=str(model.parent / "base")))
    with pytest.raises(JudgeSetupError, match="its header says"):
        make_judge("w", configured(tmp_path, backbone=str(model.parent / "base")), Path())


def test_the_revision_of_a_backbone_is_the_one_that_is_asked_for_and_taken(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    class Hub:
        """Has one model, under any name."""

        def __init__(self, kind: Any) -> None:
            self._kind = kind

        def from_pretrained(self, name: str, *, revision: str | None = None) -> Any:
            asked.append((name, revision))
            return self._kind.from_pretrained(model.parent / "base")

    for module, name in ((making, "AutoConfig"), (loading, "AutoConfig"), (loading, "AutoProcessor")):
        monkeypatch.setattr(module, name, Hub(getattr(module, name)))
    check_judge("head", configured(model, backbone="org/base@v2"))
    make_judge("w", configured(model, backbone="org/base@v2"), Path())
    assert asked == [("org/base", "v2")] * 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("questions: []", "questions"),
        ("questions: ['good?']", r"question 1 does not hold \{instruction\}"),
        (
            f"questions: ['{{instruction}} {TOKEN}', '{{instruction}}']",
            "question 2 holds '<|Reward|>' 0 times".replace("|", r"\|"),
        ),
        (f"questions: ['{{instruction}} {TOKEN}{TOKEN}']", "2 times"),
        ("question: x", "question"),
    ],
)
def test_questions_that_cannot_be_asked_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "q.yaml").write_text(text)
    with pytest.raises(PromptError, match=said):
        HeadPrompts.load(tmp_path / "q.yaml", TOKEN)


def test_a_number_that_is_none_is_a_failure(model: Path, tmp_path: Path) -> None:
    state = load_file(model / "model.safetensors")
    state["rm_heads.head_1.5.bias"] = torch.tensor([math.nan, 0.0])
    save_file(state, tmp_path / "model.safetensors")
    for verdict in judged(tmp_path, backbone=str(model.parent / "base")):
        assert math.isnan(verdict.reward)
        assert "nan" in (verdict.reason or "")


def test_the_tiny_state_is_the_backbone_s_own(model: Path) -> None:
    assert backbone_state(model.parent / "base").keys() <= load_file(model / "model.safetensors").keys()
