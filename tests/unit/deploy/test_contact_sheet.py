"""What people look at: a mask's border shows on any colour and hides next to nothing; rewards are in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.records.contact_sheet import group_row, outlined
from rc_grpo.messages import GroupScores
from rc_grpo.pocket.world import PocketWorld


def square(side: int, low: int, high: int) -> np.ndarray:
    inside = np.zeros((side, side), dtype=np.float32)
    inside[low:high, low:high] = 1.0
    return inside


@given(colour=st.tuples(*[st.integers(0, 255)] * 3), low=st.integers(0, 40))
def test_the_border_differs_visibly_from_any_colour_and_lies_where_the_mask_ends(
    colour: tuple[int, int, int], low: int
) -> None:
    image = np.full((64, 64, 3), colour, dtype=np.uint8)
    drawn = outlined(image, square(64, low, 60))
    seen = np.abs(drawn.astype(int) - image).max(axis=2) > 100
    assert seen.any()
    assert not seen[low + 2 : 58, low + 2 : 58].any(), "what is to be edited is left as it is"
    outside = square(64, low, 60) == 0
    assert not seen[outside].any()
    for line in (drawn[low, low:60], drawn[low:60, low], drawn[59, low:60], drawn[low:60, 59]):
        assert (line == 0).all()
    assert (drawn[low + 1, low + 1 : 59] == 255).all()


@pytest.mark.parametrize("side", [64, 512])
def test_a_mask_of_the_whole_image_has_a_border(side: int) -> None:
    grey = np.full((side, side, 3), 128, dtype=np.uint8)
    drawn = outlined(grey, square(side, 0, side))
    assert (drawn[0] == 0).all()
    assert (drawn != 128).any(axis=2).mean() < 0.13


def test_under_a_candidate_is_its_reward_or_why_it_has_none() -> None:
    task, rewards = PocketWorld("train", 1)[0], np.array([0.5, np.nan, 0.25, np.nan])
    scores = GroupScores(task.task_id, "judge", rewards, np.full(4, np.nan), pruned=(3,))
    row = group_row(task, np.zeros((4, 16, 16, 3), np.uint8), scores)
    assert [label for _, label in row.cells[-4:]] == ["0.500 (reference)", "0.250", "failed", "not judged"]


def test_an_empty_mask_has_none_and_the_image_is_not_written_to() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    before = image.copy()
    assert np.array_equal(outlined(image, np.zeros((32, 48), dtype=np.float32)), before)
    outlined(image, np.ones((32, 48), dtype=np.float32))
    assert np.array_equal(image, before)
