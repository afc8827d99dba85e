"""Edits of every quality to learn from: the editor's, better ones, and wrong, weak, spilled and broken ones.

A *kind* is a function from scenes to one edit of each, in 0..1 and of any truth: the teacher measures every label from
the pixels, so a kind promises nothing about its marks.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.pocket.world import PLACES, SIZES, SPRITES
from reward_service.pocket_judge.damage import DAMAGES
from reward_service.pocket_judge.material import Material, unit

Kind = Callable[[Material], Tensor]

_OBJECTS = len(SPRITES) * len(SIZES)


def improved(scenes: Material) -> Tensor:
    """Move an edit towards the target inside the mask and towards the source outside, each by its own share."""
    sharp = scenes.happens(0.5)
    goal = torch.lerp(scenes.rebuilt_target, scenes.target, sharp)
    rest = torch.lerp(scenes.rebuilt_source, scenes.source, sharp)
    edge = _soft(scenes.inside)
    inner = torch.lerp(scenes.edit, goal, scenes.uniform(0, 1))
    outer = torch.lerp(scenes.edit, rest, scenes.uniform(0, 1))
    blended = torch.lerp(outer, inner, edge)
    # Half of them the same in latent space, where the autoencoder smooths the seams.
    return torch.lerp(blended, scenes.improved, scenes.happens(0.5))


def exact(scenes: Material) -> Tensor:
    """Return the target itself."""
    return scenes.target


def untouched(scenes: Material) -> Tensor:
    """Do nothing."""
    return scenes.source


def rebuilt(scenes: Material) -> Tensor:
    """Mix source and target in any proportion, seen through the autoencoder."""
    return torch.lerp(scenes.rebuilt_source, scenes.rebuilt_target, scenes.uniform(0, 1))


def partial(scenes: Material) -> Tensor:
    """Carry the edit out in part, or beyond the target."""
    return torch.lerp(scenes.source, scenes.target, scenes.uniform(0, 1.2))


def half_done(scenes: Material) -> Tensor:
    """Carry the edit out on one side of the middle of the region alone."""
    middle = _middle(scenes.inside)
    axis = torch.arange(scenes.inside.shape[-1], device=middle.device)
    down, across = axis[None, None, :, None] < middle[:, :1, None, None], axis < middle[:, 1:, None, None]
    side = torch.where(scenes.happens(0.5) > 0, down, across).float()
    side = torch.lerp(side, 1 - side, scenes.happens(0.5))
    return torch.lerp(scenes.source, scenes.target, side)


def relit(scenes: Material) -> Tensor:
    """Make the edit and change the light of the rest, towards white or black, as a spilled edit does."""
    share, end = scenes.uniform(0.4, 1), scenes.happens(0.5)
    return torch.lerp(end + share * (scenes.target - end), scenes.target, scenes.inside)


def wrong_object(scenes: Material) -> Tensor:
    """Put any object where the edit belongs."""
    places = torch.tensor(list(PLACES.values()), device=scenes.source.device).float()
    near = (_middle(scenes.inside)[:, None] - places).square().sum(dim=-1).argmin(dim=1)
    return _stamped(scenes, near * _OBJECTS + scenes.integers(_OBJECTS))


def stray_object(scenes: Material) -> Tensor:
    """Put any object anywhere."""
    return _stamped(scenes, scenes.integers(len(scenes.stamps)))


def wrong_place(scenes: Material) -> Tensor:
    """Make the edit, but one or two places off: all scenes alike."""
    (y, _), (_, x), (middle, _) = PLACES["top center"], PLACES["center left"], PLACES["center"]
    steps = torch.randint(3, (2,), generator=scenes.generator, device=scenes.source.device).tolist()
    shift = ((steps[0] or 1) * (middle - y), steps[1] * (middle - x))
    moved = torch.roll((scenes.target - scenes.source) * scenes.inside, shift, dims=(2, 3))
    return scenes.source + scenes.uniform(0.5, 1) * moved


def damaged(scenes: Material) -> Tensor:
    """Spoil an edit or the target: inside the mask, outside it, or everywhere."""
    base = torch.lerp(scenes.edit, scenes.target, scenes.happens(0.6))
    base = torch.lerp(base, scenes.rebuilt_target, scenes.happens(0.2))
    where = scenes.uniform(0, 1)
    region = torch.where(where < 0.4, torch.ones_like(scenes.inside), scenes.inside)
    region = torch.where(where > 0.7, 1 - scenes.inside, region)
    result = torch.empty_like(base)
    for number, damage in enumerate(DAMAGES):
        rows = slice(number, None, len(DAMAGES))
        if len(base[rows]):
            result[rows] = damage(scenes.part(rows), base[rows])
    return torch.lerp(base, result.clamp(0, 1), region * scenes.uniform(0.3, 1))


def garbage(scenes: Material) -> Tensor:
    """Return something else: another scene, one colour, noise."""
    which = scenes.uniform(0, 1)
    flat = scenes.uniform(0, 1, channels=3).expand_as(scenes.source)
    noise = 0.5 + 0.3 * scenes.normal()
    foreign = scenes.target.roll(1, dims=0)
    return torch.where(which < 0.3, flat, torch.where(which < 0.6, noise, foreign))


SYNTHETIC: dict[str, tuple[Kind, float]] = {
    "exact": (exact, 1),
    "untouched": (untouched, 0.5),
    "rebuilt": (rebuilt, 2),
    "partial": (partial, 2),
    "half_done": (half_done, 2),
    "relit": (relit, 2),
    "wrong_object": (wrong_object, 1.5),
    "stray_object": (stray_object, 1.5),
    "wrong_place": (wrong_place, 1),
    "damaged": (damaged, 4),
    "garbage": (garbage, 0.5),
}
"""Kinds that need no editor, and how often each is drawn relative to the others."""

CANDIDATES = 4
"""Edits of a scene in a batch: two by the editor, one improved, one synthetic."""


def candidates(scenes: Material) -> Tensor:
    """Return edits ``[B, 4, 3, 128, 128]`` in 0..1 at 8 bits, as a PNG would bring them."""
    made = torch.stack([scenes.edit, scenes.other_edit, improved(scenes), synthetic(scenes)], dim=1)
    return (made.clamp(0, 1) * 255).round() / 255


def synthetic(scenes: Material) -> Tensor:
    """Return one synthetic edit of each scene; neighbouring rows are of one kind."""
    shares = torch.tensor([share for _, share in SYNTHETIC.values()])
    ends = (len(scenes) * shares.cumsum(0) / shares.sum()).round().int().tolist()
    parts = []
    for (kind, _), start, end in zip(SYNTHETIC.values(), [0, *ends[:-1]], ends, strict=True):
        if end > start:
            parts.append(kind(scenes.part(slice(start, end))))
    return torch.cat(parts)


def _stamped(scenes: Material, which: Tensor) -> Tensor:
    stamp = unit(scenes.stamps[which])
    base = torch.lerp(scenes.source, scenes.target, scenes.happens(0.5))
    return torch.lerp(base, stamp[:, :3], stamp[:, 3:] * scenes.uniform(0.4, 1))


def _middle(inside: Tensor) -> Tensor:
    """Return the middle of each mask as (row, column) ``[B, 2]``."""
    rows, columns = inside.amax(dim=(1, 3)), inside.amax(dim=(1, 2))
    axis = torch.arange(inside.shape[-1], device=inside.device)
    return torch.stack([(line * axis).sum(dim=1) / line.sum(dim=1) for line in (rows, columns)], dim=1)


def _soft(inside: Tensor) -> Tensor:
    return functional.avg_pool2d(inside, 5, stride=1, padding=2, count_include_pad=False)
