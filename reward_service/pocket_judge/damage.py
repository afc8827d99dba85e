"""Ways to spoil an image, each with its own random strength for every row."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from reward_service.pocket_judge.material import Material, unit

Damage = Callable[[Material, Tensor], Tensor]

_BLOCK = 8


def noise(scenes: Material, images: Tensor) -> Tensor:
    """Add grain."""
    return images + scenes.uniform(0.01, 0.2) * scenes.normal()


def speckle(scenes: Material, images: Tensor) -> Tensor:
    """Add blotches of some pixels' size."""
    coarse = functional.interpolate(scenes.normal(32), size=images.shape[-1], mode="bilinear", align_corners=False)
    return images + scenes.uniform(0.03, 0.25) * coarse


def blur(scenes: Material, images: Tensor) -> Tensor:
    """Blur a little or a lot."""
    slight, strong = (functional.avg_pool2d(images, k, 1, k // 2, count_include_pad=False) for k in (3, 9))
    return torch.lerp(slight, strong, scenes.uniform(0, 1))


def wash_out(scenes: Material, images: Tensor) -> Tensor:
    """Take contrast away, or add some."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * scenes.uniform(0.2, 1.5)


def tint(scenes: Material, images: Tensor) -> Tensor:
    """Shift colours and brightness."""
    return images + scenes.uniform(-0.15, 0.15, channels=3) + scenes.uniform(-0.2, 0.2)


def blocks(scenes: Material, images: Tensor) -> Tensor:
    """Quantise 8x8 cosine coefficients, as a coarse JPEG does."""
    basis = _cosine_basis(images.device)
    cut = images.unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)
    coefficients = basis @ cut @ basis.T
    step = scenes.uniform(0.1, 0.8)[..., None, None]
    restored = basis.T @ ((coefficients / step).round() * step) @ basis
    return restored.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)


def ringing(scenes: Material, images: Tensor) -> Tensor:
    """Sharpen until edges overshoot."""
    smooth = functional.avg_pool2d(images, 5, 1, 2, count_include_pad=False)
    return images + scenes.uniform(0.3, 2.5) * (images - smooth)


def pixelate(scenes: Material, images: Tensor) -> Tensor:
    """Show squares of four pixels."""
    return functional.interpolate(functional.avg_pool2d(images, 4), scale_factor=4.0, mode="nearest")


def intruder(scenes: Material, images: Tensor) -> Tensor:
    """Add an object nobody asked for."""
    stamp = unit(scenes.stamps[scenes.integers(len(scenes.stamps))])
    return torch.lerp(images, stamp[:, :3], stamp[:, 3:])


DAMAGES: tuple[Damage, ...] = (noise, speckle, blur, wash_out, tint, blocks, ringing, pixelate, intruder)


def _cosine_basis(device: torch.device) -> Tensor:
    """Return the orthonormal cosine transform ``[8, 8]``."""
    index = torch.arange(_BLOCK, device=device)
    basis = torch.cos(math.pi / _BLOCK * (index[None] + 0.5) * index[:, None]) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    return basis
