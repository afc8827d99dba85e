"""Pictures for the autoencoder, made on the device: crops of photographs with objects on them, in changing light."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rc_grpo.pocket.objects import IMAGE_SIZE, SIZES, SPRITES
from rc_grpo.pocket.photographs import ASSETS, Photograph, pixels

_LEAST_SHARE, _SHARES = 0.6, 9
"""The world's crops are at least that share of the shorter side; here, of so many sizes in between."""

_OBJECTS = 2
_RELIT_SHARE = 0.5
_LEAST_LARGE = min(SIZES.values()) / max(SIZES.values())


class Crops:
    """Draws pictures without end; nothing is composed on the host, which would take longer than a training step.

    Args:
        sources: photographs.
        views: crops that are kept of each; what is drawn flips and relights them and puts objects anywhere.
        device: where they are kept and drawn.
        generator: of that device.
    """

    def __init__(
        self, sources: tuple[Photograph, ...], views: int, device: torch.device, generator: torch.Generator
    ) -> None:
        self._generator = generator
        self._views = torch.cat([_crops(photograph, views, device, generator) for photograph in sources])
        self._sprites = torch.stack([_sprite(name) for name in SPRITES]).to(device)

    def __len__(self) -> int:
        return len(self._views)

    def draw(self, count: int) -> Tensor:
        """Return pictures ``[count, 3, 128, 128]`` float32 in [-1, 1]."""
        rows = torch.randint(len(self), (count,), device=self._views.device, generator=self._generator)
        images = self._views[rows].float() / 127.5 - 1
        images = torch.where(self._chance(count, 0.5), images.flip(3), images)
        for _ in range(_OBJECTS):
            images = self._with_object(images)
        return self._relit(images)

    def _with_object(self, images: Tensor) -> Tensor:
        """Put an object anywhere into half of the images, in any size that the world has."""
        count = len(images)
        which = torch.randint(len(self._sprites), (count,), device=images.device, generator=self._generator)
        share = max(SIZES.values()) / IMAGE_SIZE * self._between(count, _LEAST_LARGE, 1.0)
        middle = self._between(2 * count, -0.8, 0.8).reshape(count, 2)
        matrix = torch.zeros(count, 2, 3, device=images.device)
        matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / share
        matrix[:, :, 2] = -middle / share[:, None]
        grid = functional.affine_grid(matrix, [count, 4, IMAGE_SIZE, IMAGE_SIZE], align_corners=False)
        painted = functional.grid_sample(self._sprites[which], grid, align_corners=False)
        painted = painted * self._chance(count, 0.5)
        colour, alpha = painted[:, :3], painted[:, 3:]
        return images * (1 - alpha) + 2 * colour - alpha

    def _relit(self, images: Tensor) -> Tensor:
        count = len(images)
        changed = self._chance(count, _RELIT_SHARE).float()
        contrast = 1 + changed * self._between(count, -0.35, 0.25)[:, None, None, None]
        light = changed * self._between(3 * count, -0.25, 0.25).reshape(count, 3, 1, 1)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return ((images - mean) * contrast + mean + light).clamp(-1, 1)

    def _between(self, count: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, device=self._views.device, generator=self._generator)

    def _chance(self, count: int, share: float) -> Tensor:
        return (self._between(count, 0.0, 1.0) < share)[:, None, None, None]


def _crops(photograph: Photograph, count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """Return crops ``[count, 3, 128, 128]`` uint8 of one photograph, shrunk as the world shrinks them."""
    image = torch.from_numpy(pixels(photograph).copy()).to(device).permute(2, 0, 1).float()
    height, width = image.shape[1:]
    found = []
    for part in range(_SHARES):
        number = (count + part) // _SHARES
        side = round(min(height, width) * (_LEAST_SHARE + (1 - _LEAST_SHARE) * part / (_SHARES - 1)))
        top = torch.randint(height - side + 1, (number, 1), device=device, generator=generator)
        left = torch.randint(width - side + 1, (number, 1), device=device, generator=generator)
        along = torch.arange(side, device=device)
        cut = image[:, (top + along)[:, :, None], (left + along)[:, None, :]].transpose(0, 1)
        small = functional.interpolate(cut, IMAGE_SIZE, mode="bicubic", antialias=True, align_corners=False)
        found.append(small.round().clamp(0, 255).byte())
    return torch.cat(found)


def _sprite(name: str) -> Tensor:
    """Return an object ``[4, 44, 44]`` in [0, 1], colours premultiplied."""
    side = max(SIZES.values())
    with Image.open(ASSETS / "sprites" / f"{name}.png") as image:
        small = image.convert("RGBA").convert("RGBa").resize((side, side), Image.Resampling.LANCZOS)
    # Pillow gives no array of mode RGBa.
    array = np.frombuffer(small.tobytes(), np.uint8).reshape(side, side, 4)
    return torch.from_numpy(array.astype(np.float32) / 255).permute(2, 0, 1)
