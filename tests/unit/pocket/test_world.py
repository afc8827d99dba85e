import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from rc_grpo.images import decode_levels, decode_rgb
from rc_grpo.messages import EditTask
from rc_grpo.pocket.collect import SOURCES, credits
from rc_grpo.pocket.objects import paint
from rc_grpo.pocket.photographs import ASSETS, PHOTOGRAPHS, photographs
from rc_grpo.pocket.world import IMAGE_SIZE, SPRITES, PocketWorld


def test_a_task_is_a_function_of_split_seed_and_index_alone() -> None:
    one, other = PocketWorld("train", 10), PocketWorld("train", 1000)
    other[3]
    assert one[7] == other[7]
    assert one[7] != PocketWorld("train", 10, seed=1)[7]
    assert one[7].source != PocketWorld("heldout", 10)[7].source


def test_the_world_is_a_sequence() -> None:
    world = PocketWorld("heldout", 5)
    tasks = list(world)
    assert len(world) == len(tasks) == 5
    assert world[-1] == tasks[4]
    assert world[1:3] == tasks[1:3]
    assert tasks[4].task_id == "pocket-heldout-00004"
    with pytest.raises(IndexError):
        world[5]


def test_task_ids_differ_between_seeds() -> None:
    assert PocketWorld("train", 1, seed=0)[0].task_id != PocketWorld("train", 1, seed=2)[0].task_id


@pytest.mark.parametrize("arguments", [("test", 3), ("train", -1)])
def test_impossible_worlds_are_refused(arguments: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"split|size"):
        PocketWorld(*arguments)  # type: ignore[arg-type]


def test_splits_share_no_photograph() -> None:
    train, heldout = photographs("train"), photographs("heldout")
    assert len(train) + len(heldout) == len(PHOTOGRAPHS) >= 120
    assert 1 / 5 <= len(heldout) / len(PHOTOGRAPHS) <= 1 / 4
    contents = [photograph.file.read_bytes() for photograph in train + heldout]
    assert len(set(contents)) == len(PHOTOGRAPHS)


def test_every_asset_is_credited() -> None:
    assert {path.stem for path in (ASSETS / "photographs").glob("*.jpg")} == {p.name for p in PHOTOGRAPHS}
    assert {path.stem for path in (ASSETS / "sprites").glob("*.png")} == set(SPRITES)
    assert (ASSETS / "CREDITS.md").read_text(encoding="utf-8") == credits()
    assert {photograph.origin for photograph in PHOTOGRAPHS} == set(SOURCES)


def test_no_photograph_is_under_a_copyleft_or_share_alike_licence() -> None:
    allowed = {"public domain", "CC0-1.0", "CC-BY-2.0", "CC-BY-4.0"}
    assert [p.name for p in PHOTOGRAPHS if p.licence not in allowed] == []


def test_the_photographs_are_small() -> None:
    assert sum(photograph.file.stat().st_size for photograph in PHOTOGRAPHS) <= 5e6
    for photograph in PHOTOGRAPHS:
        with Image.open(photograph.file) as image:
            assert (min(image.size), max(image.size) <= 461) == (288, True)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_an_edit_changes_its_mask_and_nothing_else(split: str) -> None:
    for task in PocketWorld(split, 45):  # type: ignore[arg-type]
        source, target, mask = _decoded(task)
        assert source.shape == target.shape == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert mask.shape == (IMAGE_SIZE, IMAGE_SIZE)
        assert set(np.unique(mask)) == {0, 255}
        inside = mask > 0
        np.testing.assert_array_equal(source[~inside], target[~inside])
        assert 0.02 < inside.mean() < 0.3
        assert np.abs(source[inside].astype(int) - target[inside]).mean() > 5


def test_kinds_are_balanced() -> None:
    kinds = Counter(PocketWorld("train", 300).scene(i).kind for i in range(300))
    assert set(kinds.values()) == {100}


def test_a_plan_painted_is_its_scene() -> None:
    world = PocketWorld("heldout", 30)
    for index in range(30):
        plan, scene = world.plan(index), world.scene(index)
        np.testing.assert_array_equal(paint(plan.view.pixels(), plan.before), scene.source)
        np.testing.assert_array_equal(paint(plan.view.pixels(), plan.after), scene.target)
        assert (plan.kind, plan.instruction, plan.caption) == (scene.kind, scene.instruction, scene.caption)


def test_the_objects_of_a_plan_are_told_apart_by_name_and_place() -> None:
    world = PocketWorld("train", 600)
    for index in range(600):
        plan = world.plan(index)
        for objects in (plan.before, plan.after):
            assert len({placed.name for placed in objects}) == len({placed.place for placed in objects}) == len(objects)
        if plan.kind == "replace":
            assert plan.old is not None
            assert plan.new is not None
            assert (plan.old.size, plan.old.place) == (plan.new.size, plan.new.place)
            assert plan.old.name != plan.new.name


def test_images_are_png() -> None:
    task = PocketWorld("train", 1)[0]
    assert task.target is not None
    for data in (task.source, task.target, task.mask):
        assert Image.open(io.BytesIO(data)).format == "PNG"


def _decoded(task: EditTask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert task.target is not None
    return decode_rgb(task.source), decode_rgb(task.target), decode_levels(task.mask)
