import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from rc_grpo.evaluation.likeness import spearman
from rc_grpo.pocket import grammar
from rc_grpo.pocket.making.pairs import PRETRAINING_SEED, Scenes, generate
from rc_grpo.pocket.world import PocketWorld
from reward_service.contract import QUESTIONS, Question, parse_answer
from reward_service.ground_truth import measure
from reward_service.pocket_judge import PROMPTS_PATH, train
from reward_service.pocket_judge.answers import GRADES, answer, grades, phrases
from reward_service.pocket_judge.architecture import build_model, save
from reward_service.pocket_judge.batches import Batch, make
from reward_service.pocket_judge.damage import DAMAGES
from reward_service.pocket_judge.edits import SYNTHETIC, candidates, improved
from reward_service.pocket_judge.evaluate import agreement, judge
from reward_service.pocket_judge.learning import COLUMNS, Lesson, mark_distribution
from reward_service.pocket_judge.material import Material, pick, stamps, unit
from reward_service.pocket_judge.network import Network, pixel_values
from reward_service.pocket_judge.rollouts import Rollouts
from reward_service.pocket_judge.sequences import IMAGES, Form, answer_ids, prompt_ids
from reward_service.pocket_judge.tokenizer import build_tokenizer, texts
from reward_service.prompts import Prompts

PROMPTS = Prompts.load(PROMPTS_PATH)
CPU = torch.device("cpu")
INSTRUCTIONS = ["Remove the cat", "Add a small star in the top left"]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(PROMPTS)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    return build_model(tokenizer, seed=1)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    world = [PocketWorld("train", 30, seed=3).scene(i) for i in range(30)]
    source, target, mask = (
        torch.stack([torch.from_numpy(np.array(getattr(scene, name))) for scene in world])
        for name in ("source", "target", "mask")
    )
    images = [part.permute(0, 3, 1, 2).contiguous() for part in (source, target)]
    return Scenes(images[0], images[1], mask[:, None], [scene.instruction for scene in world])


@pytest.fixture(scope="module")
def material(scenes: Scenes) -> Material:
    half = (scenes.source.float() + scenes.target.float()).div(2).byte()
    rollouts = Rollouts(
        edits=torch.stack([half] * 4, dim=1),
        improved=torch.stack([half] * 2, dim=1),
        reconstructed=torch.stack([scenes.source, scenes.target], dim=1),
    )
    return pick(scenes, rollouts, stamps(CPU), torch.arange(len(scenes)), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_packed_forward_is_hugging_faces(tokenizer: Any, model: Any, question: Question) -> None:
    form = Form(tokenizer, PROMPTS, question, INSTRUCTIONS, 2, CPU)
    words, marks = (
        torch.tensor([[[0, 1], [2, 3]], [[4, 4], [1, 0]]]),
        torch.tensor([[[3, 17], [25, 0]], [[9, 9], [10, 1]]]),
    )
    answers = form.answers.filled(words, marks)
    ids, places = form.pack(torch.arange(2), answers)
    source, edited = torch.rand(2, 3, 128, 128), torch.rand(2, 2, 3, 128, 128)
    network = Network(model)
    with torch.no_grad():
        seen = network.look(edited.flatten(0, 1)).unflatten(0, (2, 2))
        shown = torch.cat([network.look(source)[:, None], seen], dim=1) if question == "sc" else seen
        hidden = network.read(ids, shown, form.layout)
        for row, column in ((0, 0), (0, 1), (1, 1)):
            prompt = prompt_ids(tokenizer, PROMPTS, question, INSTRUCTIONS[row])
            told = answer_ids(
                tokenizer, question, tuple(words[row, column].tolist()), tuple(marks[row, column].tolist())
            )
            alone = torch.tensor([prompt + told])
            pictures = torch.stack([source[row], edited[row, column]])[-IMAGES[question] :]
            theirs = model(
                input_ids=alone,
                attention_mask=torch.ones_like(alone),
                pixel_values=pixel_values(pictures),
                image_grid_thw=torch.tensor([[1, 16, 16]] * len(pictures)),
                mm_token_type_ids=(alone == model.config.image_token_id).int(),
            ).logits[0, len(prompt) - 1 : -1]
            ours = network.speak(hidden[row, places[row, column]])
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
            assert answers[row, column].tolist() == told


def test_images_reach_the_model_as_the_saved_processor_sends_them(tokenizer: Any, model: Any, tmp_path: Path) -> None:
    save(model, tokenizer, tmp_path)
    processor = Qwen2VLImageProcessor.from_pretrained(tmp_path)
    pixels = torch.randint(256, (1, 3, 128, 128), dtype=torch.uint8)
    sent = processor([pixels[0].permute(1, 2, 0).numpy()], return_tensors="pt")
    assert sent["image_grid_thw"].tolist() == [[1, 16, 16]]
    torch.testing.assert_close(sent["pixel_values"], pixel_values(unit(pixels)), atol=1e-5, rtol=0)
    large = processor([np.zeros((512, 512, 3), np.uint8)], return_tensors="pt")
    assert large["image_grid_thw"].tolist() == [[1, 16, 16]]


def test_the_saved_judge_fits_the_repository_and_keeps_its_tokenizer(
    tokenizer: Any, model: Any, tmp_path: Path
) -> None:
    save(model, tokenizer, tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 14 * 2**20
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = " ".join(INSTRUCTIONS) + ' Größe 12.5 <|im_end|>\n{"score":[12,7]}'
    assert loaded(text).input_ids == tokenizer(text).input_ids
    assert prompt_ids(loaded, PROMPTS, "sc", "Remove the cat") == prompt_ids(tokenizer, PROMPTS, "sc", "Remove the cat")


def test_every_word_and_every_mark_is_one_token(tokenizer: Any) -> None:
    world = PocketWorld("train", 400)
    for instruction in (*grammar.phrases(), *(world.plan(index).instruction for index in range(400))):
        words = len(instruction.replace(".", " .").split())
        assert len(tokenizer("Instruction: " + instruction).input_ids) == 2 + words
    for mark in range(26):
        assert len(tokenizer(str(mark)).input_ids) == 1


def test_the_tokenizer_is_lossless_and_the_same_at_every_build(tokenizer: Any) -> None:
    assert build_tokenizer(PROMPTS).get_vocab() == tokenizer.get_vocab()
    for text in [*list(texts(PROMPTS))[::97], "Füge 123 Äpfel hinzu!\n\n  "]:
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_answers_are_answers_of_one_length(tokenizer: Any) -> None:
    for question in QUESTIONS:
        lengths = set()
        for first in range(5):
            for second in range(5):
                text = answer(question, (first, second), (5 * first, 25 - second))
                assert parse_answer(text).score == (5 * first, 25 - second)
                lengths.add(len(answer_ids(tokenizer, question, (first, second), (5 * first, 25 - second))))
        assert len(lengths) == 1
        assert max(lengths) <= 25
    assert len(set(phrases())) == 2 * len(GRADES["sc"][0]) ** 2


def test_every_kind_of_edit_can_be_marked(material: Material) -> None:
    kinds = {name: kind for name, (kind, _) in SYNTHETIC.items()} | {"improved": improved}
    marks = {}
    for name, kind in kinds.items():
        edited = kind(material)
        assert edited.shape == material.source.shape, name
        marks[name] = measure(edited.clamp(0, 1), material.source, material.target, material.inside)
        assert bool(((marks[name] >= 0) & (marks[name] <= 25.001)).all()), name
    assert float(marks["exact"].min()) > 24
    assert float(marks["untouched"][:, 0].max()) < 0.01
    assert float(marks["untouched"][:, 1].min()) > 24.9
    for poor in ("garbage", "wrong_place"):
        assert float(marks[poor][:, 0].mean()) < 5
    assert float(marks["wrong_object"][:, 0].mean()) < float(marks["improved"][:, 0].mean())


def test_every_damage_costs_marks(material: Material) -> None:
    clean = measure(material.target, material.source, material.target, material.inside)
    for damage in DAMAGES:
        edited = damage(material, material.target).clamp(0, 1)
        spoiled = measure(edited, material.source, material.target, material.inside)
        assert float((clean - spoiled).max(dim=1).values.mean()) > 0.5, damage.__name__


def test_labels_are_the_teachers_of_what_is_shown(material: Material) -> None:
    batch = make(material)
    count = batch.edited.shape[1]
    assert batch.marks.shape == (len(material), count, 4)
    assert bool(((batch.edited >= 0) & (batch.edited <= 1)).all())
    torch.testing.assert_close(batch.edited * 255, (batch.edited * 255).round(), atol=1e-3, rtol=0)
    assert batch.maps.shape == (len(material), count, 64, 4)
    assert torch.equal(candidates(material)[:, 0], material.edit)


@pytest.mark.parametrize("truth", [0.0, 24.9])
def test_what_it_reads_while_it_answers_tells_nothing_about_the_truth(tokenizer: Any, truth: float) -> None:
    forms: dict[Question, Form] = {q: Form(tokenizer, PROMPTS, q, INSTRUCTIONS, 2, CPU) for q in QUESTIONS}
    images = torch.zeros(2, 2, 3, 128, 128)
    batches = [
        Batch(images[:, 0], images, torch.full((2, 2, 4), marks), torch.zeros(2, 2, 64, 4)) for marks in (truth, 9)
    ]
    lessons = [Lesson(forms, torch.arange(2), batch, torch.Generator().manual_seed(0)) for batch in batches]
    for question in QUESTIONS:
        assert all(
            torch.equal(*pair) for pair in zip(lessons[0].rows[question], lessons[1].rows[question], strict=True)
        )


def test_a_perfect_pupil_has_little_loss(tokenizer: Any) -> None:
    forms: dict[Question, Form] = {q: Form(tokenizer, PROMPTS, q, INSTRUCTIONS, 1, CPU) for q in QUESTIONS}
    marks = torch.tensor([[[12.0, 3.0, 24.0, 9.0]], [[1.0, 20.0, 6.0, 17.0]]])
    maps = torch.rand(2, 1, 64, 4)
    lesson = Lesson(forms, torch.arange(2), Batch(maps, maps, marks, maps), torch.Generator().manual_seed(0))
    results = []
    for question in QUESTIONS:
        truth = marks[..., COLUMNS[question]]
        said = forms[question].answers.filled(grades(truth), truth.long())
        results += [30 * torch.nn.functional.one_hot(said, len(tokenizer)).float(), maps]
    losses = lesson.losses(results)
    assert float(losses.words) < 1e-3
    assert float(losses.errors.max()) < 1e-3
    assert float(losses.maps) == 0


def test_a_marks_distribution_is_centred_on_it() -> None:
    marks = torch.tensor([0.0, 3.3, 12.5, 25.0])
    chances = mark_distribution(marks)
    torch.testing.assert_close(chances.sum(dim=-1), torch.ones(4))
    means = (chances * torch.arange(26)).sum(dim=-1)
    torch.testing.assert_close(means, torch.tensor([0.19, 3.3, 12.5, 24.81]), atol=0.06, rtol=0)


def test_agreement_counts_clear_pairs_and_leaves_unreadable_answers_out() -> None:
    truth = np.tile(np.array([5.0, 10.0, 20.0])[None, :, None], (2, 1, 4))
    assert agreement(truth, truth)["pairwise_accuracy"] == 1.0
    assert agreement(truth, 25 - truth)["pairwise_accuracy"] == 0.0
    assert agreement(truth, np.full_like(truth, 7.0))["pairwise_accuracy"] == 0.5
    partly = truth.copy()
    partly[0, 0] = np.nan
    report = agreement(truth, partly)
    assert report["pairs"] == 4
    assert report["spearman"] == 1.0
    assert report["unreadable"] == pytest.approx(1 / 6, abs=1e-4)
    assert spearman(np.array([1.0, 2.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0, 9.0])) == pytest.approx(0.9487, abs=1e-4)


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Split, size and seed of the scenes that a training composes."""
    asked: list[tuple[Any, ...]] = []

    def recorded(split: Any, size: int, workers: int, device: torch.device, seed: int) -> Scenes:
        asked.append((split, size, seed))
        return generate(split, size, workers, device, seed)

    monkeypatch.setattr(train, "generate", recorded)
    return asked


SIZES = ("--scenes", "2", "--batch", "2", "--eval-tasks", "1", "--workers", "1", "--log-every", "1")
COMPOSED = [("train", 2, train.WORLD_SEED), ("heldout", 1, train.WORLD_SEED)]


def test_held_out_photographs_only_ever_score_it_and_nothing_is_from_the_worlds_of_the_editor_or_of_rl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: list[tuple[Any, ...]]
) -> None:
    used: dict[str, list[str]] = {}
    monkeypatch.setattr(train, "roll_out", lambda editor, scenes, *rest: None)
    monkeypatch.setattr(train, "train", lambda *given: used.update(train=given[3].scenes.instructions))
    monkeypatch.setattr(train, "score", lambda *given: used.update(score=given[2].scenes.instructions))
    for name in ("build_model", "save", "finish"):
        monkeypatch.setattr(train, name, lambda *given, **named: None)
    train.main(["--out", str(tmp_path), "--device", "cpu", "--minutes", "0", *SIZES])
    assert composed == COMPOSED
    assert train.WORLD_SEED not in (0, PRETRAINING_SEED)
    world, heldout = PocketWorld("train", 2, train.WORLD_SEED), PocketWorld("heldout", 1, train.WORLD_SEED)
    assert used == {
        "train": [world.scene(index).instruction for index in range(2)],
        "score": [heldout.scene(0).instruction],
    }


@pytest.mark.slow  # Its witnesses in the gate are its parts above.
def test_a_short_training_saves_a_judge_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, composed: list[tuple[Any, ...]]
) -> None:
    trained_on: list[Sequence[str]] = []

    class Recorded(Form):
        def __init__(self, tokenizer: Any, prompts: Any, question: Any, instructions: Any, *rest: Any) -> None:
            trained_on.append(instructions)
            super().__init__(tokenizer, prompts, question, instructions, *rest)

    monkeypatch.setattr(train, "Form", Recorded)
    train.main(["--out", str(tmp_path), "--device", "cpu", "--minutes", "0", *SIZES])
    assert composed == COMPOSED
    world = PocketWorld("train", 2, train.WORLD_SEED)
    assert all(texts == [world.scene(i).instruction for i in range(2)] for texts in trained_on)
    report = json.loads((tmp_path / "scores.json").read_text())
    assert report["candidates_per_task"] == 8
    assert set(report["greedy"]["all"]) == set(report["expected"]["editor_only"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    edited = torch.rand(1, 1, 3, 128, 128)
    answers = judge(model, tokenizer, PROMPTS, ["Remove the cat"], edited[:, 0], edited, 2)
    # After one step it cannot speak yet, and nothing is made up for it.
    assert answers.said.shape == answers.expected.shape == (1, 1, 4)
    assert bool(np.isnan(answers.said).all())
    assert report["greedy"]["all"]["unreadable"] == 1.0
