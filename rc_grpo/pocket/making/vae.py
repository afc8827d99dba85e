"""Training of a pocket autoencoder, and its latents."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.pocket.editors.protocol import PocketEditor
from rc_grpo.pocket.making.clock import Clock
from rc_grpo.pocket.making.crops import Crops
from rc_grpo.pocket.making.pairs import Scenes, to_float
from rc_grpo.pocket.making.sitting import load_state, save_state

LOGGER = logging.getLogger(__name__)

_KL_WEIGHT = 1e-3
"""On the mean over latent elements. It keeps the latents smooth, so that the decoder forgives the flow's errors."""

_SQUARES, _EDGES = 10.0, 0.25
"""Weights of squared error (which PSNR counts) and of the error of pixels' differences, beside absolute error."""

_EMA = 0.999
_MEASURED_ON = 2048
"""Crops of which the latents' shift and scale are measured."""

_MEASURED = ("shift_factor", "scaling_factor")
"""What an autoencoder may have in its configuration that training finds out."""

_SAID_EVERY = 500


def train_vae(
    editor: PocketEditor,
    vae: Any,
    crops: Crops,
    heldout: Scenes,
    seconds: float,
    batch: int,
    rate: float,
    *,
    compiled: bool,
) -> None:
    """Train for that long, then leave averaged weights in it, and the latents' real shift and scale.

    On a GPU a step is convolutions of few channels, bound by the launching of kernels: compiled, it is one CUDA graph
    of fused ones, in bfloat16 and channels last.

    Args:
        editor: whose it is.
        vae: the autoencoder, trained before or not.
        crops: what it sees.
        heldout: of photographs that it never sees, to say how well it does.
        seconds: of training; a compiled one's begin when it is compiled.
        batch: of a step.
        rate: of learning, at its highest.
        compiled: compile the step.
    """
    device = heldout.source.device
    vae.to(device, memory_format=torch.channels_last).train()
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=fused)
    average = averaged(vae)
    loss_of = _loss_of(vae, device)
    if compiled:
        loss_of = torch.compile(loss_of, mode="reduce-overhead")
    clock, step = Clock(float("inf")), 0
    while clock.progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(rate) if step else 0.0
        images = crops.draw(batch).contiguous(memory_format=torch.channels_last)
        loss, kl = loss_of(images)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update_parameters(vae)
        if step == 0:
            clock = Clock(seconds)
        step += 1
        if step % _SAID_EVERY == 0:
            said = step, 100 * clock.progress, loss.item(), kl.item()
            LOGGER.info("vae step %d, %.0f %% of its time, loss %.4f, kl %.2f", *said)
    vae.load_state_dict(average.module.state_dict())
    vae.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    editor.measure(vae, latent_means(vae, crops.draw(_MEASURED_ON)))
    LOGGER.info("vae: %d steps", step)
    LOGGER.info("held-out reconstruction %.2f dB", psnr(vae, heldout))


def save_vae(vae: Any, folder: Path) -> None:
    """Write its weights, in float16, and its latents' shift and scale: a state of `rc_grpo.pocket.making.sitting`."""
    facts = {name: repr(float(vae.config[name])) for name in _MEASURED if name in vae.config}
    save_state(folder, "vae", {name: weight.half() for name, weight in vae.state_dict().items()}, facts)


def load_vae(vae: Any, folder: Path) -> None:
    """Take over what `save_vae` wrote.

    Raises:
        FileNotFoundError: there is nothing of the kind.
    """
    tensors, facts = load_state(folder, "vae")
    vae.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    vae.register_to_config(**{name: float(value) for name, value in facts.items()})


def averaged(module: torch.nn.Module) -> torch.optim.swa_utils.AveragedModel:
    """Return an exponential moving average of a module's weights, to be updated after every step."""
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(_EMA)  # type: ignore[no-untyped-call]
    return torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=decay)


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Return absolute and squared error of pixels, and absolute error of their differences to their neighbours."""
    loss = functional.l1_loss(decoded, images) + _SQUARES * functional.mse_loss(decoded, images)
    for axis in (2, 3):
        loss = loss + _EDGES * functional.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis))
    return loss


def latent_means(vae: Any, images: Tensor, batch: int = 512) -> Tensor:
    """Return the means of the latents ``[B, C, 16, 16]`` float32 of images ``[B, 3, 128, 128]`` in [-1, 1]."""
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        return torch.cat([vae.encode(part).latent_dist.mean.float() for part in torch.split(images, batch)])


def psnr(vae: Any, scenes: Scenes) -> float:
    """Return the mean reconstruction PSNR in dB over the scenes' sources."""
    images = to_float(scenes.source)
    with torch.no_grad():
        decoded = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in torch.split(images, 64)])
    error = ((decoded.clamp(-1, 1) - images) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


def _loss_of(vae: Any, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def loss_of(images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            mean, logvar = vae.encoder(images).chunk(2, dim=1)
            logvar = logvar.float().clamp(-30, 20)
            latents = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
            decoded = vae.decoder(latents)
        kl = 0.5 * (mean.float().square() + logvar.exp() - 1 - logvar).mean()
        return reconstruction_loss(decoded.float(), images) + _KL_WEIGHT * kl, kl

    return loss_of
