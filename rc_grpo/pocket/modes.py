"""Outcomes of an edit as modes: done, or not, in the ways in which an editor fails.

Pairs scraped from the web are noisy, and the editor that learns from them has their outcomes as its own: the noise
seed decides which. Every outcome is a sharp picture, painted from the plan: nothing is half transparent or blurred, and
what a mode does not change is the source's to the bit. A group of candidates so holds edits that succeed and edits
that do not, which is the spread that reinforcement learning lives on.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from rc_grpo.images import Pixels
from rc_grpo.pocket.objects import PLACES, SPRITES, Placed, paint
from rc_grpo.pocket.world import Plan

Mode = Literal["done", "failed", "misplaced", "partial", "spilled"]
MODES: tuple[Mode, ...] = get_args(Mode)

SHARES: dict[Mode, float] = {"done": 0.5, "failed": 0.17, "misplaced": 0.13, "partial": 0.1, "spilled": 0.1}
"""How often each is drawn: one in two edits succeeds."""

_RELIT = 0.5
"""Share of spilled edits whose light changes; in the others an object comes or goes."""

_LIGHT = (0.5, 0.7)
"""What is left of the distance to white (of a dark picture) or to black (of a bright one) when it is relit."""


def draw_mode(rng: random.Random) -> Mode:
    """Draw a mode by `SHARES`."""
    return rng.choices(MODES, [SHARES[mode] for mode in MODES])[0]


def outcome(plan: Plan, background: Pixels, mode: Mode, rng: random.Random) -> Pixels:
    """Paint how an edit came out, RGB ``[128, 128, 3]`` uint8.

    Args:
        plan: of the task.
        background: its view's pixels.
        mode: how it came out:

            - ``done``: the target;
            - ``failed``: the source;
            - ``misplaced``: the edit at another place, of a bystander, or with another object;
            - ``partial``: half of the region edited and half not, or the old object gone without the new one;
            - ``spilled``: done, and the picture relit, or another object put in or gone elsewhere.
        rng: for where and what.
    """
    return _PAINTERS[mode](plan, background, rng)


def _done(plan: Plan, background: Pixels, rng: random.Random) -> Pixels:
    return paint(background, plan.after)


def _failed(plan: Plan, background: Pixels, rng: random.Random) -> Pixels:
    return paint(background, plan.before)


def _misplaced(plan: Plan, background: Pixels, rng: random.Random) -> Pixels:
    elsewhere, stranger = _free_place(plan, rng), _free_name(plan, rng)
    ways: list[tuple[Placed, ...]] = []
    if plan.new is not None:
        ways.append((*plan.bystanders, replace(plan.new, name=stranger)))
        ways.append((*plan.before, replace(plan.new, place=elsewhere)))
    if plan.old is not None and plan.bystanders:
        mistaken = rng.choice(plan.bystanders)
        rest = tuple(placed for placed in plan.before if placed != mistaken)
        ways.append(rest if plan.new is None else (*rest, replace(mistaken, name=plan.new.name)))
    elif plan.new is None and plan.old is not None:
        ways.append((*plan.bystanders, replace(plan.old, place=elsewhere)))
    return paint(background, rng.choice(ways))


def _partial(plan: Plan, background: Pixels, rng: random.Random) -> Pixels:
    if plan.kind == "replace" and rng.random() < 0.5:
        return paint(background, plan.bystanders)
    result, target = paint(background, plan.before), paint(background, plan.after)
    rows, columns = plan.edited[0].box
    if rng.random() < 0.5:
        rows = _half(rows, rng)
    else:
        columns = _half(columns, rng)
    result[rows, columns] = target[rows, columns]
    return result


def _spilled(plan: Plan, background: Pixels, rng: random.Random) -> Pixels:
    if rng.random() < _RELIT:
        rest = _relit(paint(background, plan.bystanders), rng.uniform(*_LIGHT))
        return paint(rest, () if plan.new is None else (plan.new,))
    if plan.bystanders and rng.random() < 0.5:
        gone = rng.choice(plan.bystanders)
        return paint(background, [placed for placed in plan.after if placed != gone])
    intruder = Placed(_free_name(plan, rng), "large", _free_place(plan, rng))
    # First, so that it hides nothing of the edit.
    return paint(background, (intruder, *plan.after))


_PAINTERS: dict[Mode, Callable[[Plan, Pixels, random.Random], Pixels]] = {
    "done": _done,
    "failed": _failed,
    "misplaced": _misplaced,
    "partial": _partial,
    "spilled": _spilled,
}


def _free_place(plan: Plan, rng: random.Random) -> str:
    taken = {placed.place for placed in (*plan.bystanders, *plan.edited)}
    return rng.choice([place for place in PLACES if place not in taken])


def _free_name(plan: Plan, rng: random.Random) -> str:
    taken = {placed.name for placed in (*plan.bystanders, *plan.edited)}
    return rng.choice([name for name in SPRITES if name not in taken])


def _half(side: slice, rng: random.Random) -> slice:
    middle = (side.start + side.stop) // 2
    return rng.choice((slice(side.start, middle), slice(middle, side.stop)))


def _relit(picture: Pixels, share: float) -> Pixels:
    """Move every level towards the far end of the scale, so that none is cut off and the change is always clear."""
    end = 255 if picture.mean() < 127.5 else 0
    levels: Pixels = np.rint(end + share * (picture.astype(np.float64) - end)).astype(np.uint8)
    return levels
