"""GroundingDINO and SAM 2 are loaded and asked as transformers has them; what they find is kept, or refused by rule.

Random weights find nothing that means anything: tiny models of the real classes show that loading, boxes and sizes fit,
stand-ins with known answers show what is made of them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from rc_grpo.data.picture import Picture
from rc_grpo.images import Pixels, encode_png
from rc_grpo.masks.grounded import Detector, DetectorNotFoundError, Found, Grounded
from rc_grpo.masks.making import Example, NoMaskError
from rc_grpo.masks.shaping import Shape

from .tiny_detectors import write_detector, write_segmenter

SIZE = (40, 60)
BARE = Shape(close=0.0, hole=0.0, speck=0.0, margin=0.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("detectors")
    return write_detector(folder / "dino"), write_segmenter(folder / "sam")


def example(instruction: str, *, target: bool = True, phrase: str | None = None) -> Example:
    pictures = [
        Picture(encode_png(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)), "source")
        for seed in (1, 2)
    ]
    return Example("t", "here", None, instruction, None, phrase, pictures[0], pictures[1] if target else None, None, "")


def test_tiny_models_of_the_real_classes_load_and_answer_in_the_image_s_size(folders: tuple[Path, Path]) -> None:
    makers = [Grounded.load(*map(str, folders)) for _ in range(2)]
    image = example("").pixels()
    found, again = (maker.detector.find(image, "The cat", 0.0) for maker in makers)
    assert found.boxes.shape == (len(found.scores), 4)
    assert len(found.scores) == 6
    assert np.array_equal(found.boxes, again.boxes)
    assert (np.diff(found.scores) <= 0).all()
    assert ((found.boxes >= 0) & (found.boxes <= [SIZE[1], SIZE[0]] * 2)).all()
    assert len(makers[0].detector.find(image, "the cat", 1.0).boxes) == 0
    boxes = np.array([[3, 4, 30, 20], [20, 10, 50, 35]], dtype=np.float32)
    region = makers[0].segmenter.cut(image, boxes)
    assert region.shape == SIZE
    assert region.dtype == bool
    one, other = (makers[1].segmenter.cut(image, boxes[[index]]) for index in (0, 1))
    assert np.array_equal(region, one | other)


@dataclass
class Asked:
    """Answers as it is told to, and keeps what it was asked."""

    boxes: dict[str, list[list[float]]]
    scores: dict[str, list[float]]
    asked: list[tuple[int, str]] = field(default_factory=list)

    def find(self, image: Pixels, phrase: str, threshold: float) -> Found:
        self.asked.append((int(image[0, 0, 0]), phrase))
        return Found(
            np.array(self.boxes.get(phrase, []), dtype=np.float32).reshape(-1, 4),
            np.array(self.scores.get(phrase, []), dtype=np.float32),
        )

    def cut(self, image: Pixels, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        region = np.zeros(image.shape[:2], dtype=bool)
        for left, top, right, bottom in boxes.astype(int):
            region[top:bottom, left:right] = True
        return region


def grounded(boxes: dict[str, list[list[float]]], scores: dict[str, list[float]]) -> tuple[Grounded, Asked]:
    asked = Asked(boxes, scores)
    return Grounded(asked, asked, {}, shape=BARE), asked  # type: ignore[arg-type]


def test_what_goes_is_looked_for_in_the_source_and_what_comes_in_the_target() -> None:
    maker, asked = grounded(
        {"the cat": [[0, 0, 10, 10]], "a dog": [[20, 20, 30, 30]]}, {"the cat": [0.9], "a dog": [0.5]}
    )
    task = example("Replace the cat with a dog")
    made = maker(task)
    source, target = task.pixels(), task.target_pixels()
    assert target is not None
    assert asked.asked == [(source[0, 0, 0], "the cat"), (target[0, 0, 0], "a dog")]
    wanted = np.zeros(SIZE, dtype=bool)
    wanted[:10, :10] = wanted[20:30, 20:30] = True
    assert np.array_equal(made.inside, wanted)
    assert json.loads(json.dumps(made.detail))["boxes"] == [
        {"in": "source", "phrase": "the cat", "box": [0, 0, 10, 10], "score": 0.9},
        {"in": "target", "phrase": "a dog", "box": [20, 20, 30, 30], "score": 0.5},
    ]


def test_boxes_that_are_as_good_as_the_best_belong_to_the_region_and_worse_ones_do_not() -> None:
    maker, _ = grounded({"the cups": [[0, 0, 5, 5], [10, 10, 15, 15], [20, 20, 25, 25]]}, {"the cups": [0.8, 0.7, 0.4]})
    made = maker(example("Remove the cups"))
    assert made.inside.sum() == 50
    assert [box["score"] for box in made.detail["boxes"]] == [0.8, 0.7]


def test_the_data_set_s_own_phrase_counts_before_any_rule() -> None:
    maker, asked = grounded({"the left cup": [[0, 0, 5, 5]]}, {"the left cup": [0.9]})
    maker(example("Mach die Tasse weg", phrase="the left cup"))
    assert [phrase for _, phrase in asked.asked] == ["the left cup"]


@pytest.mark.parametrize(
    ("instruction", "target", "rule"),
    [
        ("What about cheese?", True, "no phrase"),
        ("Remove the zebra", True, "not found"),
        ("Add a zebra", False, "not found"),
    ],
)
def test_what_is_not_found_is_refused_by_rule(instruction: str, target: bool, rule: str) -> None:
    maker, _ = grounded({}, {})
    with pytest.raises(NoMaskError) as refused:
        maker(example(instruction, target=target))
    assert refused.value.rule == rule


@pytest.mark.parametrize("swap", [True, False])
def test_a_model_of_another_class_is_refused_and_not_filled_with_random_numbers(
    folders: tuple[Path, Path], swap: bool
) -> None:
    detector, segmenter = folders
    names = (segmenter, segmenter) if swap else (detector, detector)
    with pytest.raises(DetectorNotFoundError, match="--detector" if swap else "--segmenter"):
        Grounded.load(*map(str, names))


def test_weights_that_are_missing_or_pickled_are_refused_by_name(folders: tuple[Path, Path], tmp_path: Path) -> None:
    detector, segmenter = folders
    for name in ("cut", "pickled"):
        (tmp_path / name).mkdir()
        for file in detector.iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    weights: dict[str, Any] = load_file(detector / "model.safetensors")
    gone = next(key for key in sorted(weights) if "encoder" in key)
    save_file(
        {key: weights[key] for key in weights if key != gone}, tmp_path / "cut/model.safetensors", {"format": "pt"}
    )
    (tmp_path / "pickled/model.safetensors").rename(tmp_path / "pickled/pytorch_model.bin")
    for name in ("cut", "pickled", "gone"):
        with pytest.raises(DetectorNotFoundError, match=name):
            Grounded.load(str(tmp_path / name), str(segmenter))


def test_a_detector_is_asked_in_lower_case_with_a_full_stop() -> None:
    heard: list[str] = []

    def processor(images: Any, text: str, return_tensors: str) -> Any:
        heard.append(text)
        raise InterruptedError

    for phrase in ("The Cat", "the cat.", "the cat . "):
        with pytest.raises(InterruptedError):
            Detector(None, processor, None).find(example("").pixels(), phrase, 0.5)  # type: ignore[arg-type]
    assert set(heard) == {"the cat."}
