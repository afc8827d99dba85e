"""LPIPS (SqueezeNet) by torchmetrics, where torchvision and its weights are there; else one sentence that says not."""

from collections.abc import Callable
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor

from rc_grpo.storable import first_line


class LpipsUnavailableError(ValueError):
    """LPIPS cannot be measured here; the message is one sentence with the reason and the way out."""


class Lpips:
    """The learned distance of two images.

    Args:
        net: maps two ``[1, 3, h, w]`` float32 images in -1..1 to their distance.
        device: torch's name of where to run it.
    """

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor], device: str = "cpu") -> None:
        self._net = net
        self._device = device

    @classmethod
    def load(cls, device: str = "cpu") -> "Lpips":
        """Load SqueezeNet with torchmetrics' linear heads, as the benchmark's script does.

        Raises:
            LpipsUnavailableError: torchvision or the pretrained SqueezeNet is missing.
        """
        # Imported here, since torchvision is optional and takes seconds.
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            # torchmetrics takes a torchvision for usable that cannot be imported, so it is asked for by name.
            import torchvision  # type: ignore[import-untyped, import-not-found, unused-ignore]  # noqa: F401

            net: Any = LearnedPerceptualImagePatchSimilarity(net_type="squeeze").to(device)
        except (ImportError, RuntimeError) as error:
            raise LpipsUnavailableError(
                f"LPIPS is left out: torchvision, which it needs, is missing or broken ({first_line(error)}); "
                "install the torchvision that belongs to your torch"
            ) from error
        except (URLError, OSError) as error:
            raise LpipsUnavailableError(
                f"LPIPS is left out: SqueezeNet's pretrained weights are not on this machine and cannot be fetched "
                f"({first_line(error)}); put squeezenet1_1-b8a52dc0.pth into {torch.hub.get_dir()}/checkpoints"
            ) from error
        return cls(net, device)

    @torch.no_grad()
    def __call__(self, edited: Tensor, source: Tensor) -> float:
        """Return the distance of two images ``[1, 3, h, w]`` float32 in 0..1."""
        one, other = (image.to(self._device) * 2 - 1 for image in (edited, source))
        return float(self._net(one, other))
