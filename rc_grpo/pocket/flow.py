"""Flow matching of the pocket editor: transformer and text encoders, jointly, on the autoencoder's latents."""

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor
from torch.nn import functional

from rc_grpo.editor.families.flux_kontext.transformer import position_ids, predict
from rc_grpo.pocket import MAX_SEQUENCE_LENGTH
from rc_grpo.pocket.architecture import GUIDANCE, trainable
from rc_grpo.pocket.clock import Clock
from rc_grpo.pocket.pairs import Scenes, imperfect, to_float
from rc_grpo.pocket.vae import averaged, encode

LOGGER = logging.getLogger(__name__)

_MASK_EXTRA = 3.0
"""Extra weight of a token inside the mask: the edit is a sixth of the picture and most of what there is to learn."""

_GRID = 8
"""Packed tokens along a side: 128 pixels / 16."""


@dataclass(frozen=True)
class FlowData:
    """What flow matching reads, ``B`` scenes by ``V`` noisy variants of each target.

    Attributes:
        reference: packed latents of the sources ``[B, 64, 64]`` float16.
        targets: packed latents of noisy targets ``[B, V, 64, 64]`` float16.
        weights: weight of each token in the loss ``[B, 64]`` float16.
        clip: CLIP's token ids ``[B, L]``, cut to the longest instruction.
        t5: T5's token ids ``[B, MAX_SEQUENCE_LENGTH]``.
    """

    reference: Tensor
    targets: Tensor
    weights: Tensor
    clip: Tensor
    t5: Tensor


def prepare(pipeline: Any, scenes: Scenes, variants: int, generator: torch.Generator) -> FlowData:
    """Encode every scene once and its target ``variants`` times, each time with other faults."""
    device, rows = scenes.source.device, torch.arange(len(scenes))
    reference, targets, weights = [], [], []
    for part in torch.split(rows, 1024):
        source, target = to_float(scenes.source[part]), to_float(scenes.target[part])
        reference.append(pack(encode(pipeline.vae, source)).half())
        noisy = [pack(encode(pipeline.vae, imperfect(source, target, generator))).half() for _ in range(variants)]
        targets.append(torch.stack(noisy, dim=1))
        inside = functional.max_pool2d((scenes.mask[part] > 0).half(), 16).flatten(1)
        weights.append(1 + _MASK_EXTRA * inside)
    clip = pipeline.tokenizer(scenes.instructions, padding="longest", return_tensors="pt").input_ids
    t5 = pipeline.tokenizer_2(
        scenes.instructions, padding="max_length", max_length=MAX_SEQUENCE_LENGTH, return_tensors="pt"
    ).input_ids
    return FlowData(torch.cat(reference), torch.cat(targets), torch.cat(weights), clip.to(device), t5.to(device))


def pack(latents: Tensor) -> Tensor:
    """Pack latents ``[B, 16, 16, 16]`` into tokens ``[B, 64, 64]``, as FLUX does."""
    packed: Tensor = FluxKontextPipeline._pack_latents(latents, *latents.shape)
    return packed


def pocket_ids(device: torch.device) -> Tensor:
    """Return Kontext's position ids ``[128, 3]`` of [target | reference]."""
    return position_ids(_GRID, _GRID, device, torch.float32)


def shifted(uniform: Tensor) -> Tensor:
    """Map uniform times to Kontext's sigmas for 64 target tokens, so that training sees what sampling visits."""
    shift = math.exp(0.5 + (1.15 - 0.5) / (4096 - 256) * (_GRID * _GRID - 256))
    return shift * uniform / (1 + (shift - 1) * uniform)


class Editor(torch.nn.Module):
    """The trainable parts as one module, from token ids to velocity."""

    def __init__(self, pipeline: Any) -> None:
        super().__init__()
        self.transformer, self.clip, self.t5 = trainable(pipeline)

    def forward(self, noisy: Tensor, reference: Tensor, sigma: Tensor, clip: Tensor, t5: Tensor, ids: Tensor) -> Tensor:
        """Return the velocity ``[B, 64, 64]`` at noisy targets ``[B, 64, 64]`` and sigmas ``[B]``."""
        pooled, prompt = self.clip(clip).pooler_output, self.t5(t5).last_hidden_state
        guidance = torch.full_like(sigma, GUIDANCE)
        return predict(self.transformer, noisy, reference, sigma, prompt, pooled, guidance, ids)


def train_flow(
    pipeline: Any,
    data: FlowData,
    seconds: float,
    batch: int,
    rate: float,
    compiled: bool,
    bfloat16: bool,
    generator: torch.Generator,
) -> None:
    """Train for that long and leave averaged weights.

    The state at sigma is ``(1 - sigma) target + sigma noise``, the velocity ``noise - target``.
    """
    device = data.reference.device
    editor = Editor(pipeline).to(device).train()
    average = averaged(editor)
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(editor.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=1e-2, fused=fused)
    if compiled:
        pipeline.transformer.compile_repeated_blocks()
    ids = pocket_ids(device)
    # The budget of a compiled run starts when it trains: the first step is the compiler's.
    clock, step, running = Clock(math.inf), 0, torch.zeros((), device=device)
    while clock.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(rate) if step else 0.0
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            loss = _loss(editor, data, batch, ids, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(editor)
        running = torch.lerp(running, loss.detach(), 0.02) if step else loss.detach()
        step += 1
        if step == 1:
            running.item()
            clock = Clock(seconds)
        if step % 50 == 0 and not math.isfinite(running.item()):
            raise FloatingPointError(f"the loss is {running.item()} at step {step}")
        if step % 500 == 0:
            LOGGER.info("flow step %d, %.0f %% of its time, loss %.4f", step, 100 * clock.progress, running.item())
    average.module.eval()
    # The averaged copies, not the modules trained: those may be compiled.
    mean: Any = average.module
    pipeline.register_modules(transformer=mean.transformer, text_encoder=mean.clip, text_encoder_2=mean.t5)
    LOGGER.info("flow: %d steps of %d", step, batch)


def _loss(editor: Editor, data: FlowData, batch: int, ids: Tensor, generator: torch.Generator) -> Tensor:
    device = data.reference.device
    rows = torch.randint(len(data.reference), (batch,), device=device, generator=generator)
    variant = torch.randint(data.targets.shape[1], (batch,), device=device, generator=generator)
    target = data.targets[rows, variant].float()
    noise = torch.randn(target.shape, device=device, generator=generator)
    sigma = shifted(torch.rand(batch, device=device, generator=generator))
    noisy = torch.lerp(target, noise, sigma[:, None, None])
    velocity = editor(noisy, data.reference[rows].float(), sigma, data.clip[rows], data.t5[rows], ids)
    error = (velocity.float() - (noise - target)).square().mean(dim=-1)
    weights = data.weights[rows].float()
    loss: Tensor = (weights * error).sum() / weights.sum()
    return loss
