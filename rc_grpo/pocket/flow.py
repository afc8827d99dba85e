"""Flow matching of the pocket editor: transformer and text encoders, jointly, on the autoencoder's latents."""

import logging
import math
from collections.abc import Callable, Iterable
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
from rc_grpo.pocket.flow_state import FlowState
from rc_grpo.pocket.pairs import Pairs, to_float
from rc_grpo.pocket.vae import encode

LOGGER = logging.getLogger(__name__)

_MASK_EXTRA = 3.0
"""Extra weight of a token inside the mask: the edit is a sixth of the picture and most of what there is to learn."""

_GRID = 8
"""Packed tokens along a side: 128 pixels / 16."""

_SAID_EVERY = 500
_KEPT_EVERY = 120.0
"""Seconds of training after which the state is kept, so that a machine that is taken back costs no more."""


@dataclass(frozen=True)
class FlowData:
    """What flow matching reads, ``B`` scenes by ``V`` outcomes of each.

    Attributes:
        reference: packed latents of the sources ``[B, 64, 128]`` float16.
        targets: packed latents of the outcomes ``[B, V, 64, 128]`` float16.
        weights: weight of each token in the loss ``[B, 64]`` float16.
        clip: CLIP's token ids ``[B, L]``, cut to the longest instruction.
        t5: T5's token ids ``[B, MAX_SEQUENCE_LENGTH]``.
    """

    reference: Tensor
    targets: Tensor
    weights: Tensor
    clip: Tensor
    t5: Tensor

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw pairs, noises and sigmas: the arguments of a loss, in shapes that are the same at every step."""
        device = self.reference.device
        rows = torch.randint(len(self.reference), (batch,), device=device, generator=generator)
        variant = torch.randint(self.targets.shape[1], (batch,), device=device, generator=generator)
        target = self.targets[rows, variant].float()
        noise = torch.randn(target.shape, device=device, generator=generator)
        sigma = shifted(torch.rand(batch, device=device, generator=generator))
        reference, weights = self.reference[rows].float(), self.weights[rows].float()
        return target, noise, sigma, reference, weights, self.clip[rows], self.t5[rows]


def prepare(pipeline: Any, parts: Iterable[Pairs], device: torch.device) -> FlowData:
    """Encode every source once and every outcome, a part at a time: the pictures need not fit anywhere together."""
    reference, targets, weights, instructions = [], [], [], []
    for pairs in parts:
        reference.append(_packed(pipeline, pairs.source, device))
        outcomes = _packed(pipeline, pairs.outcomes.reshape(-1, *pairs.outcomes.shape[2:]), device)
        targets.append(outcomes.reshape(*pairs.outcomes.shape[:2], *outcomes.shape[1:]))
        mask = torch.from_numpy(pairs.mask).to(device)[:, None]
        weights.append(1 + _MASK_EXTRA * functional.max_pool2d((mask > 0).float(), 2 * _GRID).flatten(1).half())
        instructions += pairs.instructions
    clip = pipeline.tokenizer(instructions, padding="longest", return_tensors="pt").input_ids
    t5 = pipeline.tokenizer_2(
        instructions, padding="max_length", max_length=MAX_SEQUENCE_LENGTH, return_tensors="pt"
    ).input_ids
    return FlowData(torch.cat(reference), torch.cat(targets), torch.cat(weights), clip.to(device), t5.to(device))


def _packed(pipeline: Any, images: Any, device: torch.device) -> Tensor:
    """Return packed latents ``[B, 64, 128]`` float16 of images ``[B, 128, 128, 3]`` uint8 on the host."""
    levels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    return pack(encode(pipeline.vae, to_float(levels))).half()


def pack(latents: Tensor) -> Tensor:
    """Pack latents ``[B, 32, 16, 16]`` into tokens ``[B, 64, 128]``, as FLUX does."""
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
        """Return the velocity ``[B, 64, 128]`` at noisy targets ``[B, 64, 128]`` and sigmas ``[B]``."""
        pooled, prompt = self.clip(clip).pooler_output, self.t5(t5).last_hidden_state
        guidance = torch.full_like(sigma, GUIDANCE)
        return predict(self.transformer, noisy, reference, sigma, prompt, pooled, guidance, ids)


def train_flow(
    state: FlowState,
    data: FlowData,
    seconds: float,
    total: float,
    batch: int,
    rate: float,
    generator: torch.Generator,
    keep: Callable[[], None],
    *,
    compiled: bool,
    bfloat16: bool,
) -> None:
    """Train for one sitting.

    On a GPU a step of this model is bound by the launching of kernels: compiled, forward and backward pass are a CUDA
    graph each. The state at sigma is ``(1 - sigma) target + sigma noise``, the velocity ``noise - target``.

    Args:
        state: of the training, changed in place.
        data: what it learns.
        seconds: of this sitting; a compiled one's begin when it is compiled.
        total: seconds planned for all sittings, by which the learning rate goes.
        batch: of a step.
        rate: of learning, at its highest.
        generator: of pairs, noises and sigmas.
        keep: called every two minutes and at the end.
        compiled: compile the loss.
        bfloat16: under autocast.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    device = data.reference.device
    editor = state.editor.train()
    loss_of = _loss_of(editor, device, bfloat16=bfloat16)
    if compiled:
        loss_of = torch.compile(loss_of, mode="reduce-overhead")
    clock, started, kept = Clock(math.inf), False, 0.0
    running = torch.zeros((), device=device)
    while clock.progress < 1:
        for group in state.optimizer.param_groups:
            group["lr"] = clock.learning_rate(rate) if started else 0.0
        loss = loss_of(*data.draw(batch, generator))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(editor.parameters(), 1.0)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.average.update_parameters(editor)
        # A copy at first: a CUDA graph's next run overwrites its results.
        running = torch.lerp(running, loss.detach(), 0.02) if started else loss.detach().clone()
        state.step += 1
        if not started:
            running.item()
            clock, started = Clock(seconds, state.seconds, total), True
        if state.step % _SAID_EVERY == 0:
            if not math.isfinite(running.item()):
                raise FloatingPointError(f"the loss is {running.item()} at step {state.step}")
            said = state.step, 100 * clock.progress, running.item()
            LOGGER.info("flow step %d, %.0f %% of the sitting, loss %.4f", *said)
        if clock.elapsed - kept > _KEPT_EVERY and clock.progress < 1:
            kept, state.seconds = clock.elapsed, clock.spent
            keep()
    state.seconds = clock.spent
    keep()
    LOGGER.info("flow: %d steps of %d in all, %.0f s", state.step, batch, state.seconds)


def _loss_of(editor: torch.nn.Module, device: torch.device, *, bfloat16: bool) -> Callable[..., Tensor]:
    ids = pocket_ids(device)

    def loss_of(
        target: Tensor, noise: Tensor, sigma: Tensor, reference: Tensor, weights: Tensor, clip: Tensor, t5: Tensor
    ) -> Tensor:
        noisy = torch.lerp(target, noise, sigma[:, None, None])
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            velocity = editor(noisy, reference, sigma, clip, t5, ids)
        error = (velocity.float() - (noise - target)).square().mean(dim=-1)
        loss: Tensor = (weights * error).sum() / weights.sum()
        return loss

    return loss_of
