"""What a mask is made from, what comes of it, and by which rules none does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from rc_grpo.data.picture import Picture
from rc_grpo.images import decode_rgb

Method = Literal["difference", "grounded", "attention", "png"]

RULES = {
    "unreadable": "a text or an image of the task is none",
    "repeated": "another task has the same id",
    "no target": "the difference wants a target, and there is none",
    "sizes": "source and target have different proportions",
    "nothing changed": "source and target are the same, noise aside",
    "everything changed": "source and target differ everywhere",
    "no phrase": "the instruction does not say what to look for",
    "not found": "nothing in the image is what the phrase names, or attended to more than the rest",
    "too small": "the region is below --min-area of the image",
    "too large": "the region is above --max-area of the image",
    "no file": "the folder of --png has no file for the task",
}
"""Why a task gets no mask, in words for the summary. A task is refused by the first of them that holds."""


class NoMaskError(ValueError):
    """A task gets no mask.

    Args:
        rule: one of `RULES`.
        reason: what was found, of this task.
    """

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        assert rule in RULES
        self.rule = rule


@dataclass(frozen=True)
class Example:
    """A task before it has a mask.

    Attributes:
        task_id: as the data room derives it.
        place: where it stands, in words.
        kind: as the data set has it, or None.
        instruction: what to do.
        caption: of the edited image, or None.
        phrase: what to look for, where the data set says so itself.
        source: the image to edit.
        target: the true edit, or None.
        mask: the task's own, as grey PNG of 0 and 255 in the source's size; None where it has none that is usable.
        digest: of its parts, see `rc_grpo.data.fingerprint.digest_of`.
        references: further source images, which the editor sees.
    """

    task_id: str
    place: str
    kind: str | None
    instruction: str
    caption: str | None
    phrase: str | None
    source: Picture
    target: Picture | None
    mask: bytes | None
    digest: str
    references: tuple[Picture, ...] = ()

    def pixels(self) -> NDArray[np.uint8]:
        """Return the source, RGB ``[H, W, 3]`` uint8.

        Raises:
            NoMaskError: it cannot be decoded.
        """
        return _pixels(self.source)

    def reference_pixels(self) -> list[NDArray[np.uint8]]:
        """Return the references likewise."""
        return [_pixels(reference) for reference in self.references]

    def target_pixels(self) -> NDArray[np.uint8] | None:
        """Return the target, RGB ``[h, w, 3]`` uint8, or None where there is none.

        Raises:
            NoMaskError: it cannot be decoded.
        """
        return None if self.target is None else _pixels(self.target)


@dataclass(frozen=True)
class Made:
    """A mask, and what is kept of how it came about.

    Attributes:
        inside: ``[H, W]`` bool, True where the edit happens; of the source's size.
        detail: figures for JSON, such as the shift that was undone, or boxes with their scores.
    """

    inside: NDArray[np.bool_]
    detail: Mapping[str, Any] = field(default_factory=dict)


class MaskMaker(Protocol):
    """One way of making masks."""

    method: Method
    parallel: bool
    """Whether several threads may call it at once."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything that decides what comes out, for JSON; kept beside the masks, and compared when work goes on."""
        ...

    def __call__(self, example: Example) -> Made:
        """Return a mask.

        Raises:
            NoMaskError: there is none, by one of `RULES`.
        """
        ...


def _pixels(picture: Picture) -> NDArray[np.uint8]:
    try:
        # Through `Picture`, whose errors name the role.
        picture.decode()
        return decode_rgb(picture.read())
    except ValueError as error:
        raise NoMaskError("unreadable", str(error)) from error
