"""What is to be edited, and what an editor makes of it once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

EditKind = Literal["add", "remove", "replace", "other"]


@dataclass(frozen=True)
class EditTask:
    """One thing to edit, and where.

    Images are encoded bytes (PNG or any format Pillow reads); they are decoded where they are used.

    Attributes:
        task_id: unique within a data set; part of every seed of the task's rollouts.
        kind: which of CompBench's three families the task belongs to, or ``other``.
        source: the image to edit; mask, size and everything that is measured of a region refer to it.
        instruction: what to do, in words.
        mask: single-channel image of the source's size; set (see `rc_grpo.editor.geometry`) where the edit may happen.
        target: the true result, when the data set knows it.
        caption: what the edited region shows; CompBench's LC-T compares against it. Several are separated by ``|``.
        references: further source images, which the editor sees; an instruction counts them from 2.
    """

    task_id: str
    kind: EditKind
    source: bytes
    instruction: str
    mask: bytes
    target: bytes | None = None
    caption: str | None = None
    references: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Conditions:
    """What an editor computes once for a task from source and instruction, and every velocity call reuses.

    Attributes:
        height: height of the edited image in pixels, after the editor's resize.
        width: width in pixels.
        arrays: the editor's own arrays by name, of any dtype, without a batch axis.
        text_valid: ``[L]`` bool, True at the instruction's own tokens: not at padding, nor at a chat template's, nor at
            those that stand for an image.
        sources: ``(height, width)`` of each source image in pixels; none stands for one of the edited image's size.
    """

    height: int
    width: int
    arrays: Mapping[str, NDArray[Any]]
    text_valid: NDArray[np.bool_]
    sources: tuple[tuple[int, int], ...] = ()
