"""The pocket world: real photographs with objects added, removed and replaced by a program.

Because a program makes each edit, everything a study wants to know is known: the source, the instruction, the region,
the true target and what the region shows afterwards. A task is first a *plan*, what stands where before and after;
painted, it is a scene. `rc_grpo.pocket.modes` paints other outcomes of the same plan.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from PIL import Image

from rc_grpo.images import Pixels, encode_png
from rc_grpo.messages import EditKind, EditTask
from rc_grpo.pocket.grammar import TEMPLATES, Manner, article, phrases, say, vocabulary
from rc_grpo.pocket.objects import (
    DEFAULT_SIZE,
    IMAGE_SIZE,
    MASK_MARGIN,
    PLACES,
    SIZES,
    SPRITES,
    Placed,
    mask_of,
    paint,
)
from rc_grpo.pocket.photographs import Photograph, Split, photographs, pixels
from rc_grpo.seeds import derive

__all__ = [
    "IMAGE_SIZE",
    "MASK_MARGIN",
    "PLACES",
    "SIZES",
    "SPRITES",
    "TEMPLATES",
    "Plan",
    "PocketWorld",
    "Scene",
    "View",
    "article",
    "phrases",
    "vocabulary",
]

_KINDS: tuple[EditKind, ...] = ("add", "remove", "replace")
_UNSIZED = 0.5
"""Share of added objects of the default size, whose instruction need not name it; the others' sizes are drawn."""


@dataclass(frozen=True)
class View:
    """A square of a photograph: its left and upper edge and its side, in pixels of the photograph; perhaps mirrored."""

    photograph: Photograph
    left: float
    top: float
    side: float
    mirrored: bool

    def pixels(self) -> Pixels:
        """Return it as a background, RGB ``[128, 128, 3]`` uint8."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        image = Image.fromarray(pixels(self.photograph)).resize(
            (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC, box=box, reducing_gap=None
        )
        array = np.asarray(image)
        return np.ascontiguousarray(array[:, ::-1]) if self.mirrored else array


@dataclass(frozen=True)
class Plan:
    """What stands where before an edit and after it. No two objects of a plan have the same name.

    Attributes:
        kind: which family it belongs to.
        instruction: what to do.
        caption: what the edited region shows afterwards.
        view: the background.
        bystanders: objects that must survive, each at another place.
        old: what is removed or replaced, or None.
        new: what is added or put in the old one's place and size, or None.
    """

    kind: EditKind
    instruction: str
    caption: str
    view: View
    bystanders: tuple[Placed, ...]
    old: Placed | None
    new: Placed | None

    @property
    def before(self) -> tuple[Placed, ...]:
        """Objects of the source in the order they are drawn: what is edited hides what it overlaps."""
        return self.bystanders if self.old is None else (*self.bystanders, self.old)

    @property
    def after(self) -> tuple[Placed, ...]:
        """Objects of the target, in the same order."""
        return self.bystanders if self.new is None else (*self.bystanders, self.new)

    @property
    def edited(self) -> tuple[Placed, ...]:
        """What changes: the old one, the new one, or both."""
        return tuple(placed for placed in (self.old, self.new) if placed is not None)


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

    def plan(self, index: int) -> Plan:
        """Return what task ``index`` is, unpainted."""
        rng = random.Random(derive("pocket-world", self._split, self._seed, index))
        view = _view(rng, self._split)
        # Neighbouring indices differ in kind, so that any slice of the world is balanced to within one task.
        return _plan(rng, _KINDS[index % len(_KINDS)], view)

    def scene(self, index: int) -> Scene:
        """Return task ``index`` as arrays, which spares a training script the PNG encoding."""
        plan = self.plan(index)
        background = plan.view.pixels()
        source, target = paint(background, plan.before), paint(background, plan.after)
        return Scene(plan.kind, plan.instruction, plan.caption, source, target, mask_of(plan.edited))

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


def _view(rng: random.Random, split: Split) -> View:
    photograph = rng.choice(photographs(split))
    height, width = pixels(photograph).shape[:2]
    side = rng.uniform(0.6, 1.0) * min(height, width)
    return View(photograph, rng.uniform(0, width - side), rng.uniform(0, height - side), side, rng.random() < 0.5)


def _plan(rng: random.Random, kind: EditKind, view: View) -> Plan:
    names, places = rng.sample(tuple(SPRITES), 4), rng.sample(tuple(PLACES), 3)
    sizes = [rng.choice(tuple(SIZES)) for _ in range(3)]
    if kind == "add" and rng.random() < _UNSIZED:
        sizes[0] = DEFAULT_SIZE
    old = None if kind == "add" else Placed(names[0], sizes[0], places[0])
    new = None if kind == "remove" else Placed(names[1], sizes[0], places[0])
    others = [Placed(*parts) for parts in zip(names[2:], sizes[1:], places[1:], strict=True)]
    bystanders = tuple(others[: rng.choice((0, 0, 1, 2))])
    instruction = say(rng.choice(TEMPLATES[kind]), Manner.draw(rng), old, new)
    caption = f"the background without the {names[0]}" if new is None else f"{article(new.name)} {new.name}"
    return Plan(kind, instruction, caption, view, bystanders, old, new)
