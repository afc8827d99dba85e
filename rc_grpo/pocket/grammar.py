"""What an instruction of the pocket world may look like: the sentences that people type.

Every sentence fixes its target: an object is named once in a picture, a new one takes the size and the place of the
one it replaces, and an added one has a place, and the size that is said or else `DEFAULT_SIZE`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, product
from typing import Literal

from rc_grpo.messages import EditKind
from rc_grpo.pocket.objects import DEFAULT_SIZE, PLACES, SIZES, SPRITES, Placed

TEMPLATES: dict[EditKind, tuple[str, ...]] = {
    "add": (
        "Add {article} {new} in the {place}",
        "Add {article} {new} to the {place}",
        "Add {article} {new} on the {place}",
        "Put {article} {new} in the {place}",
        "Put {article} {new} on the {place}",
        "Place {article} {new} in the {place}",
        "Place {article} {new} at the {place}",
        "Insert {article} {new} in the {place}",
        "Insert {article} {new} into the {place}",
        "Draw {article} {new} in the {place}",
        "Draw {article} {new} on the {place}",
    ),
    "remove": (
        "Remove the {old}",
        "Delete the {old}",
        "Erase the {old}",
        "Get rid of the {old}",
        "Take away the {old}",
    ),
    "replace": (
        "Replace the {old} with {article} {new}",
        "Swap the {old} with {article} {new}",
        "Swap the {old} for {article} {new}",
        "Change the {old} to {article} {new}",
        "Change the {old} into {article} {new}",
        "Turn the {old} into {article} {new}",
    ),
}
"""Sentences in their barest form; an object may come with its size and where it is."""

WHOLES = ("picture", "image")
"""What people call the whole."""

_CORNERS = tuple(place for place in PLACES if "center" not in place)
_SIZED, _PLACED, _WHOLE, _CORNER = 0.4, 0.4, 0.3, 0.3
_POLITE, _LOWER, _STOP = 0.15, 0.3, 0.25
_FULL = 0.16


@dataclass(frozen=True)
class Manner:
    """How a sentence is said.

    Attributes:
        sized: with the object's size, where it may be left out.
        placed: with the place, where it may be left out.
        whole: "of the picture" or "of the image" behind a place ("from the" where none is said).
        corner: "corner" behind the place of one, unless ``whole`` follows.
        please: "please" at one end.
        lower: without a capital.
        stop: with a full stop.
    """

    sized: bool
    placed: bool
    whole: str | None
    corner: bool
    please: Literal["first", "last"] | None
    lower: bool
    stop: bool

    @classmethod
    def draw(cls, rng: random.Random) -> "Manner":
        """Draw one: bare more often than not, and sometimes with all that can be said."""
        full = rng.random() < _FULL

        def happens(share: float) -> bool:
            return rng.random() < share or full

        return cls(
            sized=happens(_SIZED),
            placed=happens(_PLACED),
            whole=rng.choice(WHOLES) if happens(_WHOLE) else None,
            corner=happens(_CORNER),
            please=rng.choice(("first", "last")) if happens(_POLITE) else None,
            lower=rng.random() < _LOWER,
            stop=rng.random() < _STOP,
        )


def say(template: str, manner: Manner, old: Placed | None, new: Placed | None) -> str:
    """Return a template of `TEMPLATES`, said of these objects.

    Args:
        template: one of a kind's.
        manner: how.
        old: what is removed or replaced, or None.
        new: what is added or put in its place, or None.
    """
    words: dict[str, str] = {}
    if new is not None:
        # A replacement's size is seen in the source; that of an added object is known from its sentence alone.
        sized = old is None and (manner.sized or new.size != DEFAULT_SIZE)
        words["new"] = f"{new.size} {new.name}" if sized else new.name
        words |= {"article": article(words["new"]), "place": _place(new.place, manner)}
    if old is not None:
        words["old"] = _old(old, manner, alone=new is None)
    text = template.format(**words)
    if manner.please == "first":
        text = f"Please {text[0].lower()}{text[1:]}"
    elif manner.please == "last":
        text = f"{text} please"
    if manner.lower:
        text = text.lower()
    return f"{text}." if manner.stop else text


def article(name: str) -> str:
    """Return the indefinite article of what is called so."""
    return "an" if name[0] in "aeiou" else "a"


def phrases() -> Iterator[str]:
    """Yield each template for each object and place with all that can be said, so that no task's has more words.

    Each of them holds a size, a name for the whole and "please", by turns: all of a grammar's sentences would be a
    million.
    """
    turns = cycle(product(SIZES, WHOLES, ("first", "last"), (False, True)))
    for kind, templates in TEMPLATES.items():
        for text, name, place in product(templates, SPRITES, PLACES):
            size, whole, please, lower = next(turns)
            manner = Manner(True, True, whole, False, please, lower, stop=True)  # type: ignore[arg-type]
            placed = Placed(name, size, place)
            yield say(text, manner, None if kind == "add" else placed, None if kind == "remove" else placed)


def vocabulary() -> tuple[str, ...]:
    """Return every word an instruction can hold, in lower case, sorted."""
    words = {word for phrase in phrases() for word in phrase.rstrip(".").lower().split()}
    return tuple(sorted(words | {"a", "an", "corner", "from"}))


def _place(place: str, manner: Manner) -> str:
    if manner.whole is not None:
        return f"{place} of the {manner.whole}"
    return f"{place} corner" if manner.corner and place in _CORNERS else place


def _old(old: Placed, manner: Manner, *, alone: bool) -> str:
    name = f"{old.size} {old.name}" if manner.sized else old.name
    if manner.placed:
        return f"{name} in the {_place(old.place, manner)}"
    return f"{name} from the {manner.whole}" if alone and manner.whole is not None else name
