"""What codecs share: encoders that wait in host memory, and a VAE that decodes a group in parts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PIXELS_AT_ONCE = 2**22
"""That a VAE decodes together: more is no faster, and a group at 1024 pixels would take 30 GiB."""


class Waiting:
    """Encoders of a pipeline, which may wait in host memory while they have nothing to do.

    Args:
        encoders: of text.
        device: where they work.
        offload: have them wait.
    """

    def __init__(self, encoders: Sequence[nn.Module], device: torch.device, *, offload: bool) -> None:
        self._encoders, self._device, self._offload = encoders, device, offload
        self._move(torch.device("cpu"))

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have them on their device inside the context."""
        self._move(self._device)
        try:
            yield
        finally:
            self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        if self._offload:
            for encoder in self._encoders:
                encoder.to(device)


@torch.no_grad()
def decoded_in_parts(decode: Callable[[Tensor], Tensor], latents: Tensor, size: tuple[int, int]) -> Tensor:
    """Decode a group's latents into pictures ``[B, 3, H, W]`` uint8, rounded as diffusers' pipelines do.

    Args:
        decode: from some of the latents to pictures ``[b, 3, H, W]``, -1 to 1.
        latents: ``[B, ...]``, as ``decode`` wants them.
        size: height and width of a picture.
    """
    parts = torch.split(latents, max(1, PIXELS_AT_ONCE // (size[0] * size[1])))
    return torch.cat([((decode(part).float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8) for part in parts])


def as_images(pictures: Tensor) -> NDArray[np.uint8]:
    """Return pictures ``[B, 3, H, W]`` as images ``[B, H, W, 3]`` on the CPU."""
    return np.asarray(pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy())
