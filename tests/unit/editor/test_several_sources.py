"""Edits with references: what the stock pipelines make of several images, for the families that take them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rc_grpo.algorithm import adjoint
from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import EditorConfig
from rc_grpo.data.log.conditions import pack_conditions, unpack_conditions
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.loading import load_editor, load_pipeline
from rc_grpo.editor.registry import find
from rc_grpo.images import Pixels, encode_png
from rc_grpo.messages import Conditions, EditTask
from rc_grpo.seeds import normal
from tests.families import KLEIN, KONTEXT, QWEN, QWEN_21, Row, source, trained, write_models

STEPS, SIDE = 3, 96
INSTRUCTION = "put the second on the first"
TAKING_SEVERAL = (KLEIN, QWEN, QWEN_21)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


def config_of(row: Row, models: Path, guidance: float = 1.0) -> EditorConfig:
    """Of an edit at 96 pixels: klein's pipeline takes no image of less than 64 along a side."""
    return row.editor(models, guidance).model_copy(update={"resolution": SIDE, "sources": 4})


Load = Callable[[Row, float], Editor]


@pytest.fixture(scope="module")
def load(models: Path) -> Load:
    return cache(lambda row, guidance: load_editor(config_of(row, models, guidance), seed=0))


@cache
def references(count: int) -> tuple[Pixels, ...]:
    """Pictures unlike the source and of other shapes."""
    shapes = ((96, 64), (64, 128), (128, 128))
    return tuple(255 - source(*shape)[:, ::-1] // (number + 1) for number, shape in enumerate(shapes[:count]))


def stock_edit(editor: EditorConfig, count: int) -> tuple[list[torch.Tensor], Pixels]:
    """Edit with diffusers' pipeline; return the target's latents ahead of each step, and the image."""
    pipeline = load_pipeline(editor)
    seen, take_step = list[torch.Tensor](), pipeline.scheduler.step

    def watched(velocity: torch.Tensor, timestep: Any, state: torch.Tensor, **options: Any) -> Any:
        seen.append(state.clone())
        return take_step(velocity, timestep, state, **options)

    pipeline.scheduler.step = watched
    edit = find(editor).edit
    return seen, edit(pipeline, editor, source(SIDE, SIDE), INSTRUCTION, *references(count), steps=STEPS, seed=5)


@torch.no_grad()
def states_of_ours(editor: Editor, conditions: Conditions, noise: torch.Tensor) -> torch.Tensor:
    return integrate(editor.velocity(conditions), noise, editor.sigmas(STEPS, conditions))


@pytest.mark.parametrize(
    ("row", "guidance", "count"),
    [(row, row.guidances[-further], further) for row in TAKING_SEVERAL for further in (1, 2)],
    ids=[f"{row.name}-{1 + further}" for row in TAKING_SEVERAL for further in (1, 2)],
)
def test_states_and_image_are_the_stock_pipelines_of_two_and_of_three_images(
    row: Row, guidance: float, count: int, load: Load
) -> None:
    editor = load(row, guidance)
    conditions = editor.encode_image(source(SIDE, SIDE), INSTRUCTION, *references(count))
    assert len(conditions.sources) == 1 + count
    assert (conditions.height, conditions.width) == (SIDE, SIDE)
    stock, image = stock_edit(editor.config, count)
    states = states_of_ours(editor, conditions, stock[0])
    for own, theirs in zip(states, stock, strict=False):
        assert float((own - theirs).abs().max()) == 0.0
    assert np.array_equal(editor.decode(states[-1], conditions)[0], image)


@pytest.mark.parametrize("row", TAKING_SEVERAL, ids=lambda row: row.name)
def test_a_task_is_encoded_with_its_references_in_their_order_and_keeps_them_on_its_way(row: Row, load: Load) -> None:
    editor = load(row, row.guidances[0])
    pictures = [source(SIDE, SIDE), *references(2)]
    images = [encode_png(picture) for picture in pictures]
    task = EditTask("t", "other", images[0], INSTRUCTION, b"", references=tuple(images[1:]))
    conditions = unpack_conditions(pack_conditions(editor.encode(task)))
    direct = editor.encode_image(pictures[0], INSTRUCTION, *pictures[1:])
    turned = editor.encode_image(pictures[0], INSTRUCTION, *pictures[:0:-1])
    assert conditions.sources == direct.sources == (direct.sources[0], *turned.sources[:0:-1])
    assert conditions.arrays.keys() == direct.arrays.keys()
    assert all(np.array_equal(array, direct.arrays[name]) for name, array in conditions.arrays.items())
    x = normal(5, 1, *editor.latent_shape(conditions))
    with torch.no_grad():
        ours, others = (editor.velocity(one)(x, 0.5) for one in (conditions, turned))
    assert float((ours - others).abs().max()) > 1e-3


@pytest.mark.parametrize("row", TAKING_SEVERAL, ids=lambda row: row.name)
def test_lengths_are_those_that_are_planned_and_the_instructions_own_tokens_stay(row: Row, load: Load) -> None:
    editor = load(row, row.guidances[0])
    square = source(128, 128)
    one, three = (editor.encode_image(source(SIDE, SIDE), INSTRUCTION, *[square] * count) for count in (0, 2))
    assert one.text_valid.sum() == three.text_valid.sum() > 0
    for count, conditions in ((1, one), (3, three)):
        planned = editor.body.architecture.tokens(editor.config.model_copy(update={"sources": count}))
        assert (planned.images, planned.sources) == (count, len(conditions.arrays["reference"]))
        layout = editor.body.bind(conditions, "prompt", 1.0).layout
        assert len(layout.text) == len(conditions.text_valid)
        assert layout.target.stop - layout.target.start == planned.target


def test_the_adjoint_is_exact_with_two_sources(load: Load) -> None:
    """Of the family whose sources and text lie in one stream; gradients of a whole path against autograd's."""
    editor = load(QWEN_21, 1.0)
    editor.policy.load(trained(editor))
    conditions = editor.encode_image(source(SIDE, SIDE), INSTRUCTION, *references(1))
    field, sigmas = editor.velocity(conditions), editor.sigmas(STEPS, conditions)
    noise = normal(5, 2, *editor.latent_shape(conditions))
    towards, weights = normal(6, STEPS + 1, *noise.shape), editor.policy.weights()
    states = [noise]
    for n in range(STEPS):
        states.append(states[-1] + (sigmas[n + 1] - sigmas[n]) * field(states[-1], float(sigmas[n])))
    (torch.stack(states) * towards).sum().backward()
    expected = {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}
    for weight in weights.values():
        weight.grad = None
    adjoint.backward(field, torch.stack(states).detach(), sigmas, towards)
    whole = float(torch.stack([gradient.norm() for gradient in expected.values()]).norm())
    assert whole > 0
    for name, gradient in expected.items():
        assert float((weights[name].grad - gradient).norm()) < 1e-5 * whole, name


def test_a_model_of_one_source_refuses_more(models: Path) -> None:
    editor = load_editor(KONTEXT.editor(models), seed=0)
    with pytest.raises(ValueError, match="edits with one source image, not with 2"):
        editor.encode_image(source(), "make it red", source())
