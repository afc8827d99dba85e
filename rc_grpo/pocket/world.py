"""The pocket world: real photographs with objects added, removed and replaced by a program.

Because a program makes each edit, everything a study wants to know is known: the source, the instruction, the region,
the true target and what the region shows afterwards. Objects stand on a 3x3 grid of named places in two sizes, so
that an instruction fixes its target exactly.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rc_grpo.images import Pixels, encode_png
from rc_grpo.messages import EditKind, EditTask
from rc_grpo.pocket.photographs import ASSETS, Split, photographs, pixels
from rc_grpo.seeds import derive

IMAGE_SIZE = 128
"""Side of every image in pixels: 64 packed tokens of 16x16 pixels each."""

SPRITES: dict[str, str] = {
    "apple": "🍎",
    "balloon": "🎈",
    "banana": "🍌",
    "butterfly": "🦋",
    "car": "🚗",
    "cat": "🐱",
    "cup": "☕",
    "dog": "🐶",
    "fish": "🐠",
    "frog": "🐸",
    "hat": "🎩",
    "key": "🔑",
    "mushroom": "🍄",
    "pizza": "🍕",
    "star": "⭐",
    "sunflower": "🌻",
    "tree": "🌳",
    "umbrella": "☔",
}
"""Name of each object and the emoji it is drawn as."""

SIZES: dict[str, int] = {"small": 30, "large": 44}
"""Side of an object in pixels."""

PLACES: dict[str, tuple[int, int]] = {
    f"{row} {column}" if (row, column) != ("center", "center") else "center": (y, x)
    for row, y in (("top", 23), ("center", 64), ("bottom", 105))
    for column, x in (("left", 23), ("center", 64), ("right", 105))
}
"""Name of each place and the pixel (row, column) of its middle."""

TEMPLATES: dict[EditKind, tuple[str, ...]] = {
    "add": (
        "Add a {size} {new} in the {place}",
        "Put a {size} {new} in the {place}",
        "Place a {size} {new} in the {place} of the picture",
        "Insert a {size} {new} into the {place}",
        "There should be a {size} {new} in the {place}",
    ),
    "remove": (
        "Remove the {old}",
        "Remove the {old} in the {place}",
        "Delete the {old}",
        "Take the {old} away",
        "Erase the {old} from the picture",
    ),
    "replace": (
        "Replace the {old} with {article} {new}",
        "Swap the {old} for {article} {new}",
        "Turn the {old} into {article} {new}",
        "Change the {old} in the {place} to {article} {new}",
        "Put {article} {new} where the {old} is",
    ),
}
"""What an instruction may look like; each fixes object, place and size (those of an old object show in the source)."""

MASK_MARGIN = 4
"""Pixels by which the mask exceeds the silhouettes of what changes."""

_KINDS: tuple[EditKind, ...] = ("add", "remove", "replace")


@dataclass(frozen=True)
class Scene:
    """One task before it is encoded.

    Attributes:
        kind: which family it belongs to.
        instruction: what to do.
        caption: what the edited region shows afterwards.
        source: RGB ``[128, 128, 3]`` uint8.
        target: RGB ``[128, 128, 3]`` uint8; equals the source outside the mask.
        mask: ``[128, 128]`` uint8, 255 where the edit happens and 0 elsewhere.
    """

    kind: EditKind
    instruction: str
    caption: str
    source: Pixels
    target: Pixels
    mask: Pixels


class PocketWorld(Sequence[EditTask]):
    """An endless supply of edit tasks, cut to a size: task ``i`` is a pure function of (split, seed, i).

    Args:
        split: whose photographs to use; the two splits share none.
        size: how many tasks there are.
        seed: another seed is another, equally large set over the same photographs.
    """

    def __init__(self, split: Split, size: int, seed: int = 0) -> None:
        if split not in ("train", "heldout"):
            raise ValueError(f"split is 'train' or 'heldout', not {split!r}")
        if size < 0:
            raise ValueError(f"size is at least 0, not {size}")
        self._split: Split = split
        self._size = size
        self._seed = seed

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> EditTask: ...

    @overload
    def __getitem__(self, index: slice) -> list[EditTask]: ...

    def __getitem__(self, index: int | slice) -> EditTask | list[EditTask]:
        if isinstance(index, slice):
            return [self._task(i) for i in range(*index.indices(self._size))]
        position = range(self._size)[index]
        return self._task(position)

    def __iter__(self) -> Iterator[EditTask]:
        return (self._task(i) for i in range(self._size))

    def scene(self, index: int) -> Scene:
        """Return task ``index`` as arrays, which spares a training script the PNG encoding."""
        rng = random.Random(derive("pocket-world", self._split, self._seed, index))
        background = _background(rng, self._split)
        # Neighbouring indices differ in kind, so that any slice of the world is balanced to within one task.
        kind = _KINDS[index % len(_KINDS)]
        return _compose(rng, kind, background)

    def task_id(self, index: int) -> str:
        """Return the id of task ``index`` without painting it."""
        name = self._split if self._seed == 0 else f"{self._split}-{self._seed}"
        return f"pocket-{name}-{index:05d}"

    def _task(self, index: int) -> EditTask:
        scene = self.scene(index)
        return EditTask(
            task_id=self.task_id(index),
            kind=scene.kind,
            source=encode_png(scene.source),
            instruction=scene.instruction,
            mask=encode_png(scene.mask),
            target=encode_png(scene.target),
            caption=scene.caption,
        )


def article(name: str) -> str:
    """Return the indefinite article of an object's name."""
    return "an" if name[0] in "aeiou" else "a"


def phrases() -> Iterator[str]:
    """Yield an instruction of each template for each object, size and place: no task's is longer than all of them."""
    for templates in TEMPLATES.values():
        for text, name, size, place in product(templates, SPRITES, SIZES, PLACES):
            yield text.format(old=name, new=name, size=size, place=place, article=article(name))


def vocabulary() -> tuple[str, ...]:
    """Return every word an instruction can hold, sorted."""
    words = {word for templates in TEMPLATES.values() for text in templates for word in text.split() if "{" not in word}
    words |= {word for place in PLACES for word in place.split()}
    return tuple(sorted(words | set(SPRITES) | set(SIZES) | {"a", "an"}))


@dataclass(frozen=True)
class _Placed:
    name: str
    size: str
    place: str


def _background(rng: random.Random, split: Split) -> Pixels:
    photograph = pixels(rng.choice(photographs(split)))
    height, width = photograph.shape[:2]
    side = rng.uniform(0.6, 1.0) * min(height, width)
    left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
    image = Image.fromarray(photograph).resize(
        (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side), reducing_gap=None
    )
    array = np.asarray(image)
    return np.ascontiguousarray(array[:, ::-1]) if rng.random() < 0.5 else array


def _compose(rng: random.Random, kind: EditKind, background: Pixels) -> Scene:
    names = rng.sample(tuple(SPRITES), 4)
    places = rng.sample(tuple(PLACES), 3)
    sizes = [rng.choice(tuple(SIZES)) for _ in range(3)]
    old = _Placed(names[0], sizes[0], places[0])
    new = _Placed(names[1], sizes[0], places[0])
    # Bystanders must survive the edit; they are drawn first, so that the edited object hides what it overlaps.
    bystanders = [_Placed(*parts) for parts in zip(names[2:], sizes[1:], places[1:], strict=True)]
    canvas = background
    for bystander in bystanders[: rng.choice((0, 0, 1, 2))]:
        canvas = _draw(canvas, bystander)
    source = canvas if kind == "add" else _draw(canvas, old)
    target = canvas if kind == "remove" else _draw(canvas, new)
    changed = [placed for placed, absent in ((old, "add"), (new, "remove")) if kind != absent]
    words = {"old": old.name, "new": new.name, "place": old.place, "size": old.size, "article": article(new.name)}
    caption = f"the background without the {old.name}" if kind == "remove" else f"{article(new.name)} {new.name}"
    return Scene(kind, rng.choice(TEMPLATES[kind]).format(**words), caption, source, target, _mask(changed))


@cache
def _sprite(name: str, size: str) -> NDArray[np.uint8]:
    side = SIZES[size]
    with Image.open(ASSETS / "sprites" / f"{name}.png") as image:
        # Premultiplied while it shrinks, or colours of transparent pixels bleed into the outline.
        small = image.convert("RGBA").convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    array = np.asarray(small)
    array.setflags(write=False)
    return array


def _box(placed: _Placed) -> tuple[slice, slice]:
    y, x = PLACES[placed.place]
    side = SIZES[placed.size]
    return slice(y - side // 2, y - side // 2 + side), slice(x - side // 2, x - side // 2 + side)


def _draw(canvas: Pixels, placed: _Placed) -> Pixels:
    sprite = _sprite(placed.name, placed.size).astype(np.int32)
    alpha = sprite[..., 3:]
    drawn = canvas.copy()
    box = _box(placed)
    # Integers throughout: the same bytes on every machine.
    drawn[box] = ((sprite[..., :3] * alpha + drawn[box].astype(np.int32) * (255 - alpha) + 127) // 255).astype(np.uint8)
    return drawn


def _mask(changed: Sequence[_Placed]) -> Pixels:
    mask = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    for placed in changed:
        mask[_box(placed)] |= np.where(_sprite(placed.name, placed.size)[..., 3] > 0, np.uint8(255), np.uint8(0))
    return _dilate(_dilate(mask).T).T.copy()


def _dilate(mask: Pixels) -> Pixels:
    """Maximum over a window of rows; twice, once transposed, it is a square window, faster than Pillow's."""
    padded = np.pad(mask, ((MASK_MARGIN, MASK_MARGIN), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * MASK_MARGIN + 1, axis=0)
    dilated: Pixels = windows.max(axis=-1)
    return dilated
