"""Edits with references: what the stock pipelines make of several images, for the families that take them."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rc_grpo.algorithm.solver import integrate
from rc_grpo.config import EditorConfig
from rc_grpo.editor.editor import Editor
from rc_grpo.editor.loading import load_editor, load_pipeline
from rc_grpo.editor.registry import find
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions
from tests.families import KLEIN, QWEN, QWEN_21, Row, source, write_models

STEPS, SIDE = 3, 96
INSTRUCTION = "put the second on the first"
TAKING_SEVERAL = (KLEIN, QWEN, QWEN_21)
every_case = pytest.mark.parametrize(
    ("row", "guidance"),
    [(row, guidance) for row in TAKING_SEVERAL for guidance in row.guidances],
    ids=[f"{row.name}-{guidance:g}" for row in TAKING_SEVERAL for guidance in row.guidances],
)


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


@every_case
@pytest.mark.parametrize("count", [1, 2])
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
