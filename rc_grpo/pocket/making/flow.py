"""Flow matching of a pocket editor: transformer and text encoders, jointly, on the autoencoder's latents."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.pocket.editors.protocol import GRID, PocketEditor
from rc_grpo.pocket.making.clock import Clock
from rc_grpo.pocket.making.flow_state import FlowState
from rc_grpo.pocket.making.pairs import Pairs, to_float
from rc_grpo.pocket.making.vae import latent_means

LOGGER = logging.getLogger(__name__)

_MASK_EXTRA = 3.0
"""Extra weight of a token inside the mask: the edit is a sixth of the picture and most of what there is to learn."""

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
        texts: the instructions as the editor reads them, ``B`` rows each.
        shift: of the editor's noise schedule.
    """

    reference: Tensor
    targets: Tensor
    weights: Tensor
    texts: tuple[Tensor, ...]
    shift: float

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw pairs, noises and sigmas: the arguments of a loss, in shapes that are the same at every step."""
        device = self.reference.device
        rows = torch.randint(len(self.reference), (batch,), device=device, generator=generator)
        variant = torch.randint(self.targets.shape[1], (batch,), device=device, generator=generator)
        target = self.targets[rows, variant].float()
        noise = torch.randn(target.shape, device=device, generator=generator)
        sigma = shifted(torch.rand(batch, device=device, generator=generator), self.shift)
        reference, weights = self.reference[rows].float(), self.weights[rows].float()
        return target, noise, sigma, reference, weights, *(text[rows] for text in self.texts)


def prepare(editor: PocketEditor, pipeline: Any, parts: Iterable[Pairs], device: torch.device) -> FlowData:
    """Encode every source once and every outcome, a part at a time: the pictures need not fit anywhere together."""
    reference, targets, weights, instructions = [], [], [], []
    for pairs in parts:
        reference.append(_packed(editor, pipeline.vae, pairs.source, device))
        outcomes = _packed(editor, pipeline.vae, pairs.outcomes.reshape(-1, *pairs.outcomes.shape[2:]), device)
        targets.append(outcomes.reshape(*pairs.outcomes.shape[:2], *outcomes.shape[1:]))
        mask = torch.from_numpy(pairs.mask).to(device)[:, None]
        weights.append(1 + _MASK_EXTRA * functional.max_pool2d((mask > 0).float(), 2 * GRID).flatten(1).half())
        instructions += pairs.instructions
    texts = tuple(text.to(device) for text in editor.read(pipeline, instructions))
    return FlowData(torch.cat(reference), torch.cat(targets), torch.cat(weights), texts, editor.shift)


def _packed(editor: PocketEditor, vae: Any, images: Any, device: torch.device) -> Tensor:
    """Return packed latents ``[B, 64, 128]`` float16 of images ``[B, 128, 128, 3]`` uint8 on the host."""
    levels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    return editor.tokens(vae, latent_means(vae, to_float(levels))).half()


def shifted(uniform: Tensor, shift: float) -> Tensor:
    """Map uniform times to an editor's sigmas, so that training sees what sampling visits."""
    return shift * uniform / (1 + (shift - 1) * uniform)


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
    field = state.editor.train()
    loss_of = _loss_of(field, device, bfloat16=bfloat16)
    if compiled:
        loss_of = torch.compile(loss_of, mode="reduce-overhead")
    clock, started, kept = Clock(math.inf), False, 0.0
    running = torch.zeros((), device=device)
    while clock.progress < 1:
        for group in state.optimizer.param_groups:
            group["lr"] = clock.learning_rate(rate) if started else 0.0
        loss = loss_of(*data.draw(batch, generator))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(field.parameters(), 1.0)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.average.update_parameters(field)
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


def _loss_of(field: torch.nn.Module, device: torch.device, *, bfloat16: bool) -> Callable[..., Tensor]:
    def loss_of(
        target: Tensor, noise: Tensor, sigma: Tensor, reference: Tensor, weights: Tensor, *texts: Tensor
    ) -> Tensor:
        noisy = torch.lerp(target, noise, sigma[:, None, None])
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            velocity = field(noisy, reference, sigma, *texts)
        error = (velocity.float() - (noise - target)).square().mean(dim=-1)
        loss: Tensor = (weights * error).sum() / weights.sum()
        return loss

    return loss_of
