"""What the pocket editor makes of scenes, in batches: the edits that the judge meets in reinforcement learning.

And what a better editor would make: its latents moved part of the way to the true target's inside the mask, and to the
source's outside, then decoded by the same autoencoder.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor
from torch.nn import functional

from rc_grpo.algorithm.perturbation import candidate_noise
from rc_grpo.algorithm.solver import integrate, kontext_sigmas
from rc_grpo.pocket import MAX_SEQUENCE_LENGTH
from rc_grpo.pocket.flow import Editor, pack, position_ids
from rc_grpo.pocket.pairs import Scenes, to_float
from rc_grpo.pocket.vae import encode
from rc_grpo.pocket.world import IMAGE_SIZE

STEPS = (6, 8, 16)
"""Solver steps; each batch of scenes takes the next."""

ALPHA_EDIT, ALPHA_BASE = 0.5, 0.05
"""How far a group's noises are apart inside and outside the mask: the pocket run's own."""

EDITS, IMPROVED, RECONSTRUCTED = 4, 2, 2

_TOKENS, _CHANNELS, _TOKEN = 64, 64, 16


@dataclass(frozen=True)
class Rollouts:
    """Images of ``B`` scenes, uint8 ``[B, n, 3, 128, 128]``.

    Attributes:
        edits: by the editor: the group's reference noise, two neighbours of it, and an unrelated noise (n = 4).
        improved: blends of the first edits with source and target (n = 2).
        reconstructed: source and target through the autoencoder (n = 2).
    """

    edits: Tensor
    improved: Tensor
    reconstructed: Tensor


class BatchEditor:
    """The pocket editor on many scenes at once.

    Args:
        pipeline: a loaded `FluxKontextPipeline`.
        device: where it shall run.
    """

    def __init__(self, pipeline: FluxKontextPipeline, device: torch.device) -> None:
        self._pipeline = pipeline.to(device)
        self._editor = Editor(pipeline).eval()
        self._ids = position_ids(device)

    @torch.no_grad()
    def roll_out(self, scenes: Scenes, batch: int, generator: torch.Generator) -> Rollouts:
        """Edit every scene `EDITS` times, ``batch`` scenes at a time."""
        rows = torch.split(torch.arange(len(scenes)), batch)
        parts = [self._batch(scenes, part, STEPS[number % len(STEPS)], generator) for number, part in enumerate(rows)]
        edits, improved, reconstructed = (torch.cat(images) for images in zip(*parts, strict=True))
        return Rollouts(edits, improved, reconstructed)

    def _batch(self, scenes: Scenes, rows: Tensor, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
        source, target = (
            pack(encode(self._pipeline.vae, to_float(images[rows]))) for images in (scenes.source, scenes.target)
        )
        inside = functional.max_pool2d((scenes.mask[rows] > 0).float(), _TOKEN).flatten(1)
        noise = torch.stack([group_noise(mask, generator) for mask in inside])
        edited = self._edit(source, noise, [scenes.instructions[row] for row in rows], steps)
        goal = torch.where(inside[..., None] > 0, target, source)[:, None].expand(-1, IMPROVED, -1, -1)
        # Inside and outside the mask apart: an edit may get better before the background does.
        shares = torch.rand(len(rows), IMPROVED, 2, 1, device=source.device, generator=generator)
        share = torch.where(inside[:, None] > 0, shares[:, :, 0], shares[:, :, 1])[..., None]
        improved = torch.lerp(edited[:, :IMPROVED], goal, share)
        for latents in (edited, improved, torch.stack([source, target], dim=1)):
            yield self._decode(latents.flatten(0, 1)).reshape(*latents.shape[:2], 3, IMAGE_SIZE, IMAGE_SIZE)

    def _edit(self, source: Tensor, noise: Tensor, instructions: list[str], steps: int) -> Tensor:
        count = noise.shape[1]
        pipeline, device = self._pipeline, source.device
        clip = pipeline.tokenizer(instructions, padding="longest", return_tensors="pt").input_ids
        t5 = pipeline.tokenizer_2(
            instructions, padding="max_length", max_length=MAX_SEQUENCE_LENGTH, return_tensors="pt"
        ).input_ids
        reference, clip, t5 = (part.to(device).repeat_interleave(count, 0) for part in (source, clip, t5))

        def velocity(x: Tensor, sigma: float) -> Tensor:
            times = torch.full((len(x),), sigma, device=device)
            field: Tensor = self._editor(x, reference, times, clip, t5, self._ids)
            return field

        states = integrate(velocity, noise.flatten(0, 1), kontext_sigmas(steps, _TOKENS))
        return states[-1].reshape(noise.shape)

    def _decode(self, latents: Tensor) -> Tensor:
        vae = self._pipeline.vae
        unpacked = FluxKontextPipeline._unpack_latents(latents, IMAGE_SIZE, IMAGE_SIZE, self._pipeline.vae_scale_factor)
        scaled = unpacked / vae.config.scaling_factor + vae.config.shift_factor
        decoded = torch.cat([vae.decode(part).sample for part in torch.split(scaled, 512)])
        return ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def group_noise(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Draw noises ``[4, 64, 64]`` for one scene: reference, two neighbours, one that is unrelated; mask ``[64]``."""
    drawn = torch.randn(EDITS, _TOKENS, _CHANNELS, device=mask.device, generator=generator)
    near = candidate_noise(drawn[0], drawn[1 : EDITS - 1], mask, ALPHA_EDIT, ALPHA_BASE)
    return torch.cat([near, drawn[EDITS - 1 :]])
