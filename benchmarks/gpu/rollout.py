"""The rollout's forward pass at full size: compiled with attention recorded, and in float8, beside stock diffusers.

    python -m benchmarks.gpu.rollout

Leaves ``benchmarks/results/gpu_rollout.json``.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from benchmarks.gpu.measuring import (
    DEVICE,
    EDITOR,
    MIB,
    denoiser_of,
    forward_tflop,
    free,
    matmul_ceiling,
    milliseconds,
    one_forward,
    peak_memory,
    random_conditions,
    random_states,
    rollout_denoiser_of,
    show,
    square_mask,
    stock_transformer,
)
from benchmarks.results import Figure, write
from rc_grpo.algorithm import metric, solver
from rc_grpo.algorithm.perturbation import candidate_noise
from rc_grpo.config import AcdConfig, RolloutConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.merged import MergedPolicy
from rc_grpo.seeds import normal

SIZES = ((1024, 4), (512, 12))
LAYERS = AcdConfig().chosen(load_architecture(EDITOR).layers)
ROLLOUT = RolloutConfig()


def main() -> None:
    """Measure and write."""
    ceiling = matmul_ceiling()
    measured: dict[str, dict[str, float]] = {}
    states: dict[str, Tensor] = {}

    states["stock eager"] = _stock(measured)

    densities: dict[str, Tensor] = {}
    for name, quantised in (("bf16", False), ("fp8", True)):
        denoiser = _denoiser(in_fp8=quantised)
        for side, batch in SIZES:
            _measure(measured, f"{name}, recorded", denoiser, side, batch, record=True)
            _measure(measured, f"{name}, not recorded", denoiser, side, batch)
        states[name], densities[name] = _rollout(denoiser, record=True)
        del denoiser
        free()

    # The GPU's clock sinks as it heats up: the baseline is measured at both ends, and stands for what lies between.
    again: dict[str, dict[str, float]] = {}
    _stock(again)
    for name, row in again.items():
        measured[name]["ms_at_the_end"] = row["ms"]

    rows = [
        (
            name,
            key,
            row["ms"],
            row["tflop_s"],
            f"{row['tflop_s'] / ceiling:.1%}",
            f"{_ratio(measured, full):.2f}x",
            row["peak_mib"],
        )
        for full, row in measured.items()
        for name, key in [full.rsplit(" ", 1)]
    ]
    show(
        f"forward pass, matmul ceiling {ceiling:.0f} TFLOP/s",
        ("what", "size x batch", "ms", "TFLOP/s", "of the ceiling", "stock eager", "peak MiB"),
        rows,
    )
    deviations = {name: _deviation(states["bf16"], other) for name, other in states.items() if name != "bf16"}
    deviations["fp8"] |= {"acd_rank_correlation": _ranks(_acd(densities["bf16"]), _acd(densities["fp8"]))}
    for name, values in deviations.items():
        show(f"rollout of 12 at 512x512, {name} against bf16 compiled", tuple(values), [tuple(values.values())])

    large, small = ("1024x4", "512x12")
    best = measured[f"bf16, recorded {large}"]
    figures = {
        "speedup_1024": Figure(_ratio(measured, f"bf16, recorded {large}"), "x stock eager", "at least 1.30"),
        "matmul_share_1024": Figure(best["tflop_s"] / ceiling, "fraction", "at least 0.74"),
        "speedup_512": Figure(_ratio(measured, f"bf16, recorded {small}"), "x stock eager", "at least 1.30"),
        "acd_overhead": Figure(
            best["ms"] / measured[f"bf16, not recorded {large}"]["ms"] - 1, "fraction", "at most 0.010"
        ),
        "acd_peak_memory": Figure(
            best["peak_mib"] - measured[f"bf16, not recorded {large}"]["peak_mib"], "MiB", "at most 64"
        ),
        "speedup_fp8": Figure(_ratio(measured, f"fp8, recorded {large}"), "x stock eager", "at least 1.8"),
    }
    write(
        "gpu_rollout",
        figures,
        {"matmul_ceiling_tflop_s": ceiling, "forward": measured, "deviation_from_bf16": deviations},
        module="benchmarks.gpu.rollout",
    )


def _denoiser(*, eager: bool = False, in_fp8: bool = False) -> Denoiser:
    """The policy as a rollout worker holds it, or the model as diffusers runs it."""
    transformer = stock_transformer()
    if not eager:
        return rollout_denoiser_of(transformer, fp8=in_fp8)
    denoiser = denoiser_of(transformer, MergedPolicy)
    transformer.set_attn_processor(FluxAttnProcessor())
    return denoiser


def recorded(
    denoiser: Denoiser, side: int, record: bool, layers: tuple[int, ...] = LAYERS
) -> AbstractContextManager[Any]:
    """Record attention inside the context, or do not."""
    text = torch.from_numpy(random_conditions(side).text_valid)
    return denoiser.recording(layers, square_mask(side), text) if record else nullcontext()


def _measure(
    measured: dict[str, dict[str, float]],
    name: str,
    denoiser: Denoiser,
    side: int,
    batch: int,
    *,
    record: bool = False,
) -> None:
    call = one_forward(denoiser.velocity(random_conditions(side)), random_states(side, batch))
    with recorded(denoiser, side, record):
        time = milliseconds(call, 3, 1)
        peak = peak_memory(call)
    print(f"{name} {side}x{batch}: {time:.1f} ms", flush=True)
    measured[f"{name} {side}x{batch}"] = {
        "ms": time,
        "tflop_s": sum(forward_tflop(side, batch)) / time * 1e3,
        "peak_mib": peak / MIB,
    }


def _ratio(measured: dict[str, dict[str, float]], name: str) -> float:
    stock = measured[f"stock eager {name.rsplit(' ', 1)[1]}"]
    return (stock["ms"] + stock["ms_at_the_end"]) / 2 / measured[name]["ms"]


def _stock(measured: dict[str, dict[str, float]]) -> Tensor:
    """Measure stock diffusers, and return its group's states."""
    stock = _denoiser(eager=True)
    for side, batch in SIZES:
        _measure(measured, "stock eager", stock, side, batch)
    states, _ = _rollout(stock, record=False)
    del stock
    free()
    return states


@torch.no_grad()
def _rollout(denoiser: Denoiser, *, record: bool) -> tuple[Tensor, Tensor]:
    """Return a group's states ``[T+1, G, N, C]``, and its densities."""
    conditions, mask = random_conditions(512), square_mask(512)
    shape = denoiser.latent_shape(conditions)
    deltas = torch.stack([normal(100 + index, *shape) for index in range(ROLLOUT.group_size - 1)])
    noise = candidate_noise(normal(99, *shape), deltas, mask, ROLLOUT.alpha_edit, ROLLOUT.alpha_base).to(DEVICE)
    sigmas = denoiser.sigmas(ROLLOUT.steps, conditions)
    with recorded(denoiser, 512, record) as recorder:
        states = solver.integrate(denoiser.velocity(conditions), noise, sigmas)
    return states, recorder.density if record else torch.empty(0)


def _deviation(reference: Tensor, other: Tensor) -> dict[str, float]:
    """Compare two rollouts from the same noise: their last states, and how a fixed scorer ranks the candidates.

    The scorer is the distance to a fixed point in the learner's own metric: the differences that the surrogate sees.
    """
    mask = square_mask(512).to(DEVICE)
    weights = metric.region_weights(mask, reference.shape[-1])
    target = normal(77, *reference.shape[2:]).to(DEVICE)
    spread = (reference[-1] - reference[-1].mean(dim=0)).square().mean().sqrt()
    scores = [metric.masked_distance(states[-1], target, weights) for states in (reference, other)]
    return {
        "relative_error_of_last_states": float((other[-1] - reference[-1]).norm() / reference[-1].norm()),
        "error_over_spread_within_group": float((other[-1] - reference[-1]).square().mean().sqrt() / spread),
        "rank_correlation": _ranks(*scores),
    }


def _acd(density: Tensor) -> Tensor:
    return density.mean(dim=(1, 2))


def _ranks(first: Tensor, second: Tensor) -> float:
    return float(spearman_corrcoef(first.float().cpu(), second.float().cpu()))


if __name__ == "__main__":
    main()
