"""The pocket editor on many scenes at once, from token ids to images: for whoever needs thousands of its edits."""

from collections.abc import Sequence

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor

from rc_grpo.algorithm.solver import integrate, kontext_sigmas
from rc_grpo.editor.families.flux_kontext.codec import decode
from rc_grpo.pocket import MODEL_PATH
from rc_grpo.pocket.editors.kontext import EDITOR
from rc_grpo.pocket.editors.protocol import GRID, LATENT_CHANNELS
from rc_grpo.pocket.making.pairs import to_float
from rc_grpo.pocket.making.vae import latent_means
from rc_grpo.pocket.objects import IMAGE_SIZE

TOKENS, CHANNELS, TOKEN = GRID * GRID, 4 * LATENT_CHANNELS, IMAGE_SIZE // GRID
"""Of an image of the pocket world in the editor's latents: tokens, channels of one, its side in pixels."""

_IMAGES_AT_ONCE = 512


class PocketBatches:
    """Encodes, edits and decodes batches.

    Args:
        pipeline: of the pocket editor.
        device: where it shall run.
    """

    def __init__(self, pipeline: FluxKontextPipeline, device: torch.device) -> None:
        self._pipeline = pipeline.to(device)
        self._field = EDITOR.field(pipeline).eval()

    @classmethod
    def load(cls, device: torch.device) -> "PocketBatches":
        """Load the packaged editor."""
        return cls(FluxKontextPipeline.from_pretrained(MODEL_PATH), device)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the packed latents ``[B, 64, 128]`` of images ``[B, 3, 128, 128]`` uint8."""
        vae = self._pipeline.vae
        return EDITOR.tokens(vae, latent_means(vae, to_float(images)))

    @torch.no_grad()
    def edit(self, source: Tensor, noise: Tensor, instructions: Sequence[str], steps: int) -> Tensor:
        """Edit each source from several noises.

        Args:
            source: packed latents ``[B, 64, 128]``.
            noise: ``[B, n, 64, 128]``.
            instructions: B of them.
            steps: of the solver.

        Returns:
            The edits' packed latents, in the shape of the noise.
        """
        count, device = noise.shape[1], source.device
        read = (source, *EDITOR.read(self._pipeline, instructions))
        reference, *texts = (part.to(device).repeat_interleave(count, 0) for part in read)

        def velocity(x: Tensor, sigma: float) -> Tensor:
            times = torch.full((len(x),), sigma, device=device)
            field: Tensor = self._field(x, reference, times, *texts)
            return field

        states = integrate(velocity, noise.flatten(0, 1), kontext_sigmas(steps, TOKENS))
        return states[-1].reshape(noise.shape)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``[B, n, 3, 128, 128]`` uint8 of packed latents ``[B, n, 64, 128]``."""
        parts = torch.split(latents.flatten(0, 1), _IMAGES_AT_ONCE)
        images = torch.cat([decode(self._pipeline, part, IMAGE_SIZE, IMAGE_SIZE) for part in parts])
        return images.reshape(*latents.shape[:2], *images.shape[1:])
