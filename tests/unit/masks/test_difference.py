"""A difference finds the region of an edit, whatever else an encoder or a generator did to the picture."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from rc_grpo.images import Pixels
from rc_grpo.masks.difference import Difference
from rc_grpo.masks.making import NoMaskError
from rc_grpo.masks.shaping import Shape
from rc_grpo.pocket.world import PocketWorld

MAKE = Difference()
BARE = Difference(shape=Shape(margin=0.0))
TASKS = range(8)
Change = Callable[[Pixels], Pixels]


def jpeg(image: Pixels, quality: int = 85) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def shifted(image: Pixels, down: float, right: float) -> Pixels:
    """By Pillow's transform, not by what undoes it."""
    height, width = image.shape[:2]
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, (1, 0, -right, 0, 1, -down), Image.Resampling.BICUBIC
    )
    rows, columns = np.mgrid[:height, :width]
    return np.where(
        ((rows >= np.ceil(down)) & (rows < height + np.floor(down)))[..., None]
        & ((columns >= np.ceil(right)) & (columns < width + np.floor(right)))[..., None],
        np.asarray(moved),
        image,
    )


def relit(image: Pixels, gain: float, offset: float) -> Pixels:
    return np.clip(image * gain + offset, 0, 255).round().astype(np.uint8)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


CHANGES: dict[str, Change] = {
    "as it is": lambda image: image,
    "as JPEG 85": jpeg,
    "two pixels aside": lambda image: shifted(image, 2, 0),
    "half a pixel aside, as JPEG": lambda image: jpeg(shifted(image, 0.5, -1.3)),
    "brighter by a twentieth": lambda image: relit(image, 1.05, 0),
    "all of it": lambda image: jpeg(relit(shifted(image, -1.5, 2), 0.96, 3)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_known_regions_of_the_pocket_world_are_found(name: str) -> None:
    world = PocketWorld("heldout", len(TASKS))
    found = []
    for index in TASKS:
        scene = world.scene(index)
        made = MAKE.between(scene.source, CHANGES[name](scene.target))
        found.append(overlap(made.inside, scene.mask > 0))
    assert np.median(found) >= 0.8
    assert np.quantile(found, 0.1) >= 0.7


def photograph(seed: int, height: int = 96, width: int = 120) -> Pixels:
    """Something smooth with edges and grain, of which every window is different."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (5, 5, 0))
    smooth = (smooth - smooth.mean()) / smooth.std() * 40 + 120
    smooth[height // 3 :, width // 2 :] += 25
    return np.clip(smooth + rng.normal(size=smooth.shape) * 2, 0, 255).round().astype(np.uint8)


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    top=st.integers(8, 50),
    left=st.integers(8, 70),
    height=st.integers(14, 34),
    width=st.integers(14, 40),
    down=st.floats(-1.5, 1.5),
    right=st.floats(-1.5, 1.5),
    gain=st.floats(0.95, 1.05),
)
def test_a_box_that_was_painted_in_is_found_and_nothing_else(
    seed: int, top: int, left: int, height: int, width: int, down: float, right: float, gain: float
) -> None:
    source = photograph(seed)
    inside = np.zeros(source.shape[:2], dtype=bool)
    inside[top : top + height, left : left + width] = True
    target = source.copy()
    target[inside] = np.array([250, 20, 240])
    made = BARE.between(source, jpeg(relit(shifted(target, down, right), gain, 0), 90))
    assert made.inside[inside].mean() >= 0.97
    beyond = ndimage.distance_transform_edt(~inside) > 5
    assert not (made.inside & beyond).any()


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1000),
    down=st.floats(-1.5, 1.5),
    right=st.floats(-1.5, 1.5),
    gain=st.floats(0.94, 1.06),
    quality=st.integers(70, 100),
)
def test_what_an_encoder_or_a_generator_does_to_all_of_a_picture_is_no_edit(
    seed: int, down: float, right: float, gain: float, quality: int
) -> None:
    source = photograph(seed)
    with pytest.raises(NoMaskError) as refused:
        MAKE.between(source, jpeg(relit(shifted(source, down, right), gain, 0), quality))
    assert refused.value.rule == "nothing changed"


@pytest.mark.parametrize(("down", "right"), [(2, 0), (-1, 2), (0.5, -0.25)])
def test_the_shift_that_is_undone_is_the_shift_there_was(down: float, right: float) -> None:
    scene = PocketWorld("heldout", 1).scene(0)
    found = MAKE.between(scene.source, shifted(scene.target, down, right)).detail["shift"]
    assert found == pytest.approx([-down, -right], abs=0.15)


def test_a_mask_has_the_source_s_size_where_the_target_is_another() -> None:
    source = photograph(5, 300, 400)
    target = source.copy()
    target[100:160, 200:300] = (255, 0, 0)
    smaller = np.asarray(Image.fromarray(target).resize((200, 152), Image.Resampling.LANCZOS))
    inside = np.zeros((300, 400), dtype=bool)
    inside[100:160, 200:300] = True
    for size in (64, 1024):
        made = Difference(side=max(size, 200), shape=Shape(margin=0.0)).between(source, smaller)
        assert made.inside.shape == (300, 400)
        assert overlap(made.inside, inside) > 0.7


@pytest.mark.parametrize("size", [(96, 96), (120, 96), (96, 130)])
def test_a_target_of_other_proportions_is_refused_with_both_sizes(size: tuple[int, int]) -> None:
    with pytest.raises(NoMaskError, match=f"96x120, the target {size[0]}x{size[1]}") as refused:
        MAKE.between(photograph(1), photograph(1, *size))
    assert refused.value.rule == "sizes"


def test_a_picture_that_is_another_is_refused() -> None:
    source = PocketWorld("train", 1).scene(0).source
    with pytest.raises(NoMaskError) as refused:
        MAKE.between(source, 255 - source)
    assert refused.value.rule == "everything changed"


def test_a_margin_surrounds_the_region_by_its_share_of_the_side() -> None:
    source = photograph(7, 128, 128)
    target = source.copy()
    target[50:80, 50:80] = (0, 255, 0)
    bare, wide = (Difference(shape=Shape(margin=margin)).between(source, target).inside for margin in (0.0, 1 / 16))
    reach = ndimage.distance_transform_edt(~bare)[wide].max()
    assert 7 <= reach <= 8
    assert (wide & bare).sum() == bare.sum()
