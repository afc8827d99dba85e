"""What codecs share: encoders that wait in host memory, a VAE that decodes in parts, the stock pipeline's own edit."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from rc_grpo.config import EditorConfig
from rc_grpo.editor.finite import require_finite
from rc_grpo.editor.geometry import editing_size, resize_image
from rc_grpo.images import Pixels, decode_rgb, on_white
from rc_grpo.messages import Conditions, EditTask

PIXELS_AT_ONCE = 2**20
"""That a VAE decodes together: more is no faster, and a group at 1024 pixels would take 30 GiB."""


class Waiting:
    """Encoders of a pipeline, which may wait in host memory while they have nothing to do.

    What waits stays there, in pages that a GPU reads directly, and is copied to where it works. Nothing comes back, for
    nothing changes it: there and back by way of ordinary pages, ten gigabytes took eight seconds (one H200).

    Args:
        encoders: of text.
        device: where they work.
        offload: have them wait.
    """

    def __init__(self, encoders: Sequence[nn.Module], device: torch.device, *, offload: bool) -> None:
        self._device = device
        self._waits = [_in_host_memory(tensor, device) for tensor in _tensors(encoders)] if offload else []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have them on their device inside the context."""
        try:
            for tensor, here in self._waits:
                tensor.data = here.to(self._device, non_blocking=True)
            yield
        finally:
            for tensor, here in self._waits:
                tensor.data = here


def _tensors(encoders: Sequence[nn.Module]) -> list[Tensor]:
    found = [tensor for encoder in encoders for tensor in (*encoder.parameters(), *encoder.buffers())]
    return list({id(tensor): tensor for tensor in found}.values())


def _in_host_memory(tensor: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    here = tensor.detach().to("cpu")
    tensor.data = here.pin_memory() if device.type == "cuda" else here
    return tensor, tensor.data


def in_float32(pictures: Tensor) -> Tensor:
    """Return pictures of -1 to 1 as ones of 0 to 1, in more precision than diffusers' pipelines do it in."""
    return (pictures.float() / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def decoded_in_parts(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    size: tuple[int, int],
    to_unit: Callable[[Tensor], Tensor] = in_float32,
) -> Tensor:
    """Decode a group's latents into pictures ``[B, channels, H, W]`` uint8, rounded as diffusers' pipelines do.

    Args:
        decode: from some of the latents to pictures ``[b, channels, H, W]``, -1 to 1.
        latents: ``[B, ...]``, as ``decode`` wants them.
        size: height and width of a picture.
        to_unit: from -1 to 1 to 0 to 1.

    Raises:
        NonFiniteEditError: a picture holds a NaN.
    """
    pictures = []
    for part in torch.split(latents, max(1, PIXELS_AT_ONCE // (size[0] * size[1]))):
        decoded = to_unit(decode(part)).float()
        require_finite(decoded, "the VAE's pictures")
        pictures.append((decoded * 255).round().to(torch.uint8))
    return torch.cat(pictures)


def moments(vae: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of a video VAE's latents ``[1, channels, 1, 1, 1]``, where and as ``like`` is."""
    mean, deviation = (
        torch.tensor(numbers).view(1, -1, 1, 1, 1).to(like)
        for numbers in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, deviation


def as_images(pictures: Tensor) -> NDArray[np.uint8]:
    """Return pictures ``[B, channels, H, W]`` as images ``[B, H, W, channels]`` on the CPU."""
    return np.asarray(pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy())


class StockCodec(ABC):
    """The part of a `rc_grpo.editor.family.Codec` that does not differ.

    Args:
        pipeline: with encoders and VAE; its transformer is not used.
        config: the editor's configuration.
        encoders: of text.
        offload: keep these in host memory while they have nothing to do.

    Attributes:
        latents: of the VAE along a token's side.
        multiple: an edited image has sides of a multiple of so many tokens.
    """

    latents: ClassVar[int] = 2
    multiple: ClassVar[int] = 1

    def __init__(self, pipeline: Any, config: EditorConfig, encoders: Sequence[nn.Module], *, offload: bool) -> None:
        self.pipeline = pipeline
        self.config = config
        self.token = int(pipeline.vae_scale_factor * self.latents)
        self.text_encoders = Waiting(encoders, pipeline.vae.device, offload=offload)

    def encode(self, task: EditTask) -> Conditions:
        """Encode a task's source images and instruction, at the size it is edited at."""
        return self.encode_image(decode_rgb(task.source), task.instruction, *map(decode_rgb, task.references))

    @abstractmethod
    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """See `rc_grpo.editor.family.Codec`."""

    def fitted(self, source: Pixels) -> Pixels:
        """Return an image at the size it is edited at."""
        return fitted(source, self.config.resolution, self.token * self.multiple)


def fitted(image: Pixels, resolution: int, multiple: int) -> Pixels:
    """Return an image at the size of `rc_grpo.editor.geometry.editing_size`."""
    return resize_image(image, *editing_size(image.shape[0], image.shape[1], resolution, multiple))


def stock_edit(
    pipeline: Any, source: Pixels, instruction: str, *references: Pixels, steps: int, seed: int, **options: Any
) -> Pixels:
    """Edit an image with a stock pipeline, at its own size; ``options`` are the pipeline's own."""
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(
        image=[Image.fromarray(image) for image in (source, *references)] if references else Image.fromarray(source),
        prompt=instruction,
        height=source.shape[0],
        width=source.shape[1],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        **options,
    )
    return on_white(result.images[0])
