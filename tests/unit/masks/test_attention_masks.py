"""Masks of the pocket editor's own attention: their size, that they are the same each time, and how good they are."""

import numpy as np
import pytest

from deploy.configs import load_config
from rc_grpo.data.picture import Picture
from rc_grpo.editor.geometry import binary_mask
from rc_grpo.masks.attention import Attention
from rc_grpo.masks.making import Example, NoMaskError
from rc_grpo.pocket.world import PocketWorld

WORLD = PocketWorld("heldout", 12)


def example(index: int, instruction: str | None = None) -> Example:
    task = WORLD[index]
    said = task.instruction if instruction is None else instruction
    return Example(task.task_id, "here", None, said, None, None, Picture(task.source, "source"), None, None, "")


@pytest.fixture(scope="module")
def maker() -> Attention:
    return Attention.load(load_config("pocket", None))


def test_a_mask_has_the_source_s_size_and_is_the_same_each_time(maker: Attention) -> None:
    one, again = (maker(example(0)) for _ in range(2))
    assert one.inside.shape == (128, 128)
    assert np.array_equal(one.inside, again.inside)
    assert one.detail == again.detail
    attended = maker.attended(example(0).pixels(), WORLD[0].instruction, "t")
    assert attended.shape == (8, 8)
    assert attended.mean() == pytest.approx(1.0, abs=1e-4)


def test_an_instruction_beyond_the_editor_is_refused(maker: Attention) -> None:
    with pytest.raises(NoMaskError, match=r"editor\.text_tokens") as refused:
        maker(example(0, "Add " + "very " * 60 + "large cat"))
    assert refused.value.rule == "unreadable"


def test_other_words_are_attended_to_elsewhere(maker: Attention) -> None:
    source = example(0).pixels()
    left, right = (
        maker.attended(source, f"Add a large cat in the {place}", "t") for place in ("top left", "bottom right")
    )
    assert left[:3, :3].mean() > right[:3, :3].mean()
    assert right[-3:, -3:].mean() > left[-3:, -3:].mean()


def test_known_regions_of_the_pocket_world_are_found_roughly(maker: Attention) -> None:
    found = []
    for index in range(6):
        made, known = maker(example(index)).inside, binary_mask(WORLD[index].mask)
        found.append((made & known).sum() / (made | known).sum())
    assert np.median(found) >= 0.6


def test_after_making_masks_the_editor_has_its_own_processors(maker: Attention) -> None:
    before = [type(block.attn.processor) for block in maker.editor.body.blocks]
    maker.attended(example(1).pixels(), WORLD[1].instruction, "t")
    assert [type(block.attn.processor) for block in maker.editor.body.blocks] == before
    assert all(block.attn.processor.probe is None for block in maker.editor.body.blocks)
