"""Masks as PNG files that a person looks at, paints over or throws away, and the same masks read back."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np

from rc_grpo.data.masks import canonical_mask
from rc_grpo.data.picture import Picture
from rc_grpo.editor.geometry import EmptyMaskError, binary_mask
from rc_grpo.masks.making import Example, Made, Method, NoMaskError

_LONGEST = 120
"""Characters of an id that stand in a file's name; file systems take 255 bytes."""


def name_of(task_id: str) -> str:
    """Return the name of a task's file: its id where that is a name, else escaped as in a URL, and cut where long."""
    escaped = quote(task_id, safe=" ()+,=@")
    if len(escaped) > _LONGEST or escaped.startswith("."):
        escaped = f"{escaped[:_LONGEST].lstrip('.')}-{hashlib.sha256(task_id.encode()).hexdigest()[:16]}"
    return f"{escaped}.png"


@dataclass(frozen=True)
class Drawn:
    """Reads the mask of a task from its file.

    Attributes:
        folder: of the files, by `name_of`.
    """

    folder: Path
    method: ClassVar[Method] = "png"
    parallel: ClassVar[bool] = True

    @property
    def parameters(self) -> Mapping[str, Any]:
        """See `rc_grpo.masks.making.MaskMaker`; a file that is changed makes another digest."""
        digest = hashlib.sha256()
        for file in sorted(self.folder.glob("*.png")):
            digest.update(f"{file.name}:{file.stat().st_size}:".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return {"files": digest.hexdigest()[:16]}

    def __call__(self, example: Example) -> Made:
        """See `rc_grpo.masks.making.MaskMaker`."""
        file = self.folder / name_of(example.task_id)
        if not file.is_file():
            raise NoMaskError("no file", f"there is no {file.name} in {self.folder}")
        try:
            mask = canonical_mask(Picture(file, "mask"), example.source, "auto")
        except EmptyMaskError as error:
            raise NoMaskError("too small", f"{file.name}: {error}") from error
        except ValueError as error:
            raise NoMaskError("unreadable", f"{file.name}: {error}") from error
        return Made(np.asarray(binary_mask(mask)))
