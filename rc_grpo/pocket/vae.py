"""Training of the pocket autoencoder, and its latents in the form the transformer reads."""

import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rc_grpo.pocket.clock import Clock
from rc_grpo.pocket.pairs import Scenes, imperfect, to_float

LOGGER = logging.getLogger(__name__)

_KL_WEIGHT = 1e-3
"""On the mean over latent elements. It keeps the latents smooth, so that the decoder forgives the flow's errors."""

_EMA = 0.999


def train_vae(vae: Any, scenes: Scenes, seconds: float, batch: int, rate: float, generator: torch.Generator) -> None:
    """Train for that long, then leave averaged weights and the latents' real shift and scale in the config."""
    device = scenes.source.device
    vae.to(device).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=1e-4)
    average = averaged(vae)
    clock, step = Clock(seconds), 0
    while clock.progress < 1:
        images = _images(scenes, batch, generator)
        for group in optimizer.param_groups:
            group["lr"] = clock.learning_rate(rate)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            posterior = vae.encode(images).latent_dist
            latents = posterior.mean + posterior.std * torch.randn(
                posterior.mean.shape, device=device, generator=generator
            )
            decoded = vae.decode(latents.to(images.dtype)).sample
        kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1.0 - posterior.logvar.float()).mean()
        loss = reconstruction_loss(decoded.float(), images) + _KL_WEIGHT * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(vae)
        step += 1
        if step % 200 == 0:
            LOGGER.info(
                "vae step %d, %.0f %% of its time, loss %.4f, kl %.2f",
                step,
                100 * clock.progress,
                loss.item(),
                kl.item(),
            )
    if step:
        vae.load_state_dict(average.module.state_dict())
    vae.eval().requires_grad_(False)
    _measure_latents(vae, scenes, batch)
    LOGGER.info("vae: %d steps, shift %.4f, scale %.4f", step, vae.config.shift_factor, vae.config.scaling_factor)


def averaged(module: torch.nn.Module) -> torch.optim.swa_utils.AveragedModel:
    """Return an exponential moving average of a module's weights, to be updated after every step."""
    decay = torch.optim.swa_utils.get_ema_multi_avg_fn(_EMA)  # type: ignore[no-untyped-call]
    return torch.optim.swa_utils.AveragedModel(module, multi_avg_fn=decay)


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Return L1 on pixels, on their gradients and on two coarser scales: a perceptual loss that needs no network."""
    loss = functional.l1_loss(decoded, images) + functional.mse_loss(decoded, images)
    for axis in (2, 3):
        loss = loss + 0.5 * functional.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis))
    for factor in (2, 4):
        coarse = functional.avg_pool2d(decoded, factor), functional.avg_pool2d(images, factor)
        loss = loss + 0.5 * functional.l1_loss(*coarse)
    return loss


def encode(vae: Any, images: Tensor, batch: int = 512) -> Tensor:
    """Return latent means ``[B, 16, 16, 16]`` float32 of images ``[B, 3, 128, 128]`` in [-1, 1], scaled."""
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=images.device.type == "cuda"):
        means = torch.cat([vae.encode(part).latent_dist.mean.float() for part in torch.split(images, batch)])
    scaled: Tensor = (means - vae.config.shift_factor) * vae.config.scaling_factor
    return scaled


def psnr(vae: Any, scenes: Scenes) -> float:
    """Return the mean reconstruction PSNR in dB over the scenes' sources."""
    images = to_float(scenes.source)
    with torch.no_grad():
        decoded = torch.cat([vae.decode(vae.encode(part).latent_dist.mean).sample for part in torch.split(images, 64)])
    error = ((decoded.clamp(-1, 1) - images) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).mean())


def _images(scenes: Scenes, batch: int, generator: torch.Generator) -> Tensor:
    device = scenes.source.device
    rows = torch.randint(len(scenes), (batch,), device=device, generator=generator)
    source, target = to_float(scenes.source[rows]), to_float(scenes.target[rows])
    half = batch // 2
    # Half of them with the faults of the training pairs, which the decoder has to show, too.
    return torch.cat([target[:half], imperfect(source[half:], target[half:], generator)])


def _measure_latents(vae: Any, scenes: Scenes, batch: int) -> None:
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    latents = encode(vae, to_float(scenes.target[:4096]), batch)
    vae.register_to_config(shift_factor=float(latents.mean()), scaling_factor=float(1 / latents.std()))
