"""One sample as the benchmark looks at it: everything at 512 x 512, levels and modes as Pillow gives them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from rc_grpo.images import Pixels, stored

SIDE = 512
"""CompBench measures everything at 512 x 512, aspect ignored."""


@dataclass(frozen=True)
class Originals:
    """The encoded images that a benchmark gives of one sample; the edit comes from elsewhere.

    Attributes:
        source: the image to edit.
        mask: as stored: 0/255, 0/1 or grey, of any size.
        target: the true result, where there is one.
    """

    source: bytes
    mask: bytes
    target: bytes | None = None


@dataclass(frozen=True, eq=False)
class Frames:
    """The decoded images of one sample, all of one size.

    Attributes:
        source: ``[S, S, 3]`` uint8.
        edited: ``[S, S, 3]`` uint8.
        mask: ``[S, S]`` uint8, levels as stored.
        target: ``[S, S, 3]`` uint8, or None where the benchmark has no true result.
    """

    source: Pixels
    edited: Pixels
    mask: Pixels
    target: Pixels | None = None

    @classmethod
    def read(cls, originals: Originals, edited: bytes, side: int = SIDE) -> "Frames":
        """Decode and resize as the published script does: bicubic images, nearest mask, aspect ignored.

        Transparency is dropped, not flattened as `rc_grpo.images.decode_rgb` does it, because the script's
        ``convert("RGB")`` drops it.

        Raises:
            ValueError: one of the images is unreadable; says which.
        """
        target = originals.target
        return cls(
            source=_resized(originals.source, "source", "RGB", Image.Resampling.BICUBIC, side),
            edited=_resized(edited, "edit", "RGB", Image.Resampling.BICUBIC, side),
            mask=_resized(originals.mask, "mask", "L", Image.Resampling.NEAREST, side),
            target=None if target is None else _resized(target, "target", "RGB", Image.Resampling.BICUBIC, side),
        )


def planes(image: Pixels) -> Tensor:
    """Return ``[h, w, 3]`` uint8 as ``[1, 3, h, w]`` float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float() / 255


def plane(values: NDArray[np.float32]) -> Tensor:
    """Return ``[h, w]`` float32 as ``[1, 1, h, w]``, to multiply `planes` with."""
    return torch.from_numpy(values)[None, None]


def _resized(
    data: bytes, role: str, mode: Literal["RGB", "L"], resample: Image.Resampling, side: int
) -> NDArray[np.uint8]:
    try:
        return np.asarray(stored(data).convert(mode).resize((side, side), resample))
    except ValueError as error:
        raise ValueError(f"the {role} is not a readable image ({len(data)} bytes): {error}") from error
