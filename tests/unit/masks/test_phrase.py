"""What an instruction is about, by rule; what no rule reads has no phrase."""

import pytest

from rc_grpo.masks.phrase import Phrases, phrases_of
from rc_grpo.pocket.objects import SPRITES
from rc_grpo.pocket.world import PocketWorld


@pytest.mark.parametrize(
    ("said", "old"),
    [
        ("Remove the cup", "the cup"),
        ("please remove the cup on the table.", "the cup on the table"),
        ("Could you get rid of the red car in the background?", "the red car"),
        (
            "Remove the red flag and its white pole from the upper right of the image, extending the sky",
            "the red flag and its white pole",
        ),
        ("Remove the group of people located in the far-right of the image.", "the group of people"),
        ("Delete the dog and add a cat", "the dog"),
        ("ERASE the sign", "the sign"),
    ],
)
def test_what_is_removed_is_looked_for_in_the_source(said: str, old: str) -> None:
    assert phrases_of(said) == Phrases(old=old)


@pytest.mark.parametrize(
    ("said", "new"),
    [
        ("Add a large cat in the top left", "a large cat"),
        ("put a hat on the man", "a hat"),
        ("Let's place two birds above the tree please", "two birds"),
        ("Insert a vase next to the lamp, with flowers", "a vase"),
    ],
)
def test_what_is_added_is_looked_for_in_the_target(said: str, new: str) -> None:
    assert phrases_of(said) == Phrases(new=new)


@pytest.mark.parametrize(
    ("said", "old", "new"),
    [
        ("Replace the green vest with a brown leather jacket", "the green vest", "a brown leather jacket"),
        ("swap the sunflower for a cat.", "the sunflower", "a cat"),
        ("Replace the red apple with a green one.", "the red apple", None),
        ("Turn the lamp into a tree", "the lamp", "a tree"),
        ("Change the red car to blue", "the red car", None),
        ("change the color of the dress to green", "the dress", None),
        ("Change the person’s expression to smiling", "the person", None),
        ("Make the dog look angry", "the dog", None),
        ("make the cat blue", "the cat", None),
        ("Paint the wall red", "the wall", None),
    ],
)
def test_what_changes_is_looked_for_before_and_what_it_becomes_after(said: str, old: str, new: str | None) -> None:
    assert phrases_of(said) == Phrases(old, new)


@pytest.mark.parametrize(
    "said",
    [
        "What about some cheese?",
        "Convert the image to a Van Gogh painting style",
        "Change the background to a beach",
        "Remove",
        "remove the background",
        "Uppercase the text on the billboard",
        "Add " + "very " * 20 + "large cat",
        "猫を追加",
    ],
)
def test_what_no_rule_reads_has_no_phrase(said: str) -> None:
    assert phrases_of(said) is None


def test_every_task_of_the_pocket_world_is_about_its_own_objects() -> None:
    world = PocketWorld("train", 300)
    for index in range(300):
        plan = world.plan(index)
        found = phrases_of(plan.instruction)
        assert found is not None, plan.instruction
        said = f"{found.old} {found.new}".split()
        for placed in plan.edited:
            assert placed.name in said, plan.instruction
        assert {word for word in said if word in SPRITES} == {placed.name for placed in plan.edited}, plan.instruction
