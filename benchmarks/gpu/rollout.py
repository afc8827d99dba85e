"""The rollout's forward pass at full size: compiled with attention recorded, and in float8, beside stock diffusers.

    python -m benchmarks.gpu.rollout

Leaves ``benchmarks/results/gpu_rollout.json``.
"""

import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.regression import spearman_corrcoef

from benchmarks.gpu.measuring import (
    DEVICE,
    KONTEXT,
    MIB,
    forward_tflop,
    free,
    matmul_ceiling,
    milliseconds,
    one_forward,
    peak_memory,
    random_conditions,
    random_states,
    rollout_denoiser,
    show,
    square_mask,
    stock_denoiser,
    tokens_of,
)
from benchmarks.results import Figure, write
from rc_grpo.algorithm import metric, solver
from rc_grpo.algorithm.perturbation import candidate_noise
from rc_grpo.config import AcdConfig, EditorConfig, RolloutConfig
from rc_grpo.config.rollout import Fp8
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.loading import load_architecture
from rc_grpo.seeds import normal

LARGE, SMALL = (1024, 4), (512, 12)
"""Side and batch; a group is rolled out at the latter."""
ROLLOUT = RolloutConfig()
ATTENTION, RANKS, GROUPS = "fp8 with attention", "at least 0.99", 5
"""What is measured by that name; of groups of 12, against bfloat16; how many of them for ACD."""


@dataclass
class Measured:
    """What one editor's forward passes and rollouts came to.

    Attributes:
        editor: which.
        ceiling: TFLOP/s of its largest matrix product.
        forward: by name, side and batch: milliseconds, TFLOP/s, peak memory.
        deviations: of rollouts from the one in bfloat16, compiled.
    """

    editor: EditorConfig
    ceiling: float
    forward: dict[str, dict[str, float]] = field(default_factory=dict)
    deviations: dict[str, dict[str, float]] = field(default_factory=dict)

    def speedup(self, name: str) -> float:
        """Return how many times faster than stock diffusers, measured before and after, a forward pass is."""
        stock = self.forward[f"stock eager {name.rsplit(' ', 1)[1]}"]
        return (stock["ms"] + stock["ms_at_the_end"]) / 2 / self.forward[name]["ms"]

    def matmul_share(self, name: str) -> float:
        """Return a forward pass's share of the ceiling."""
        return self.forward[name]["tflop_s"] / self.ceiling

    def acd_overhead(self, at: str) -> float:
        """Return what recording attention adds to a forward pass, as a fraction."""
        return self.forward[f"bf16, recorded {at}"]["ms"] / self.forward[f"bf16, not recorded {at}"]["ms"] - 1

    @property
    def detail(self) -> dict[str, Any]:
        """All of it."""
        return {
            "matmul_ceiling_tflop_s": self.ceiling,
            "forward": self.forward,
            "deviation_from_bf16": self.deviations,
        }

    def show(self) -> None:
        """Print it."""
        rows = [
            (name, at, row["ms"], row["tflop_s"], f"{self.matmul_share(full):.1%}", f"{self.speedup(full):.2f}x")
            for full, row in self.forward.items()
            for name, at in [full.rsplit(" ", 1)]
        ]
        title = f"forward pass of {self.editor.model}, matmul ceiling {self.ceiling:.0f} TFLOP/s"
        show(title, ("what", "size x batch", "ms", "TFLOP/s", "of the ceiling", "stock eager"), rows)
        for name, values in self.deviations.items():
            show(f"rollout of 12 at 512x512, {name} against bf16 compiled", tuple(values), [tuple(values.values())])


def measure(
    editor: EditorConfig, sizes: Sequence[tuple[int, int]] = (LARGE, SMALL), *, attention: bool = False
) -> Measured:
    """Measure an editor of full size: as diffusers runs it, and as a rollout worker does in bfloat16 and in float8.

    Args:
        editor: which.
        sizes: sides and batches.
        attention: measure attention in float8, too.
    """
    ceiling = matmul_ceiling(load_architecture(editor), LARGE[1] * tokens_of(editor, LARGE[0]).total)
    measured = Measured(editor, ceiling)
    states: dict[str, Tensor] = {}
    rewards: dict[str, list[Tensor]] = {}
    states["stock eager"] = _stock(measured, sizes)
    ways: dict[str, Fp8] = {"bf16": False, "fp8": "gemm"} | ({ATTENTION: "all"} if attention else {})
    for name, quantised in ways.items():
        denoiser = rollout_denoiser(editor, fp8=quantised)
        for size in sizes:
            _measure(measured, f"{name}, recorded", denoiser, size, record=True)
            _measure(measured, f"{name}, not recorded", denoiser, size)
        groups = [_rollout(denoiser, group, record=True) for group in range(GROUPS)]
        states[name], rewards[name] = groups[0][0], [density.mean(dim=(1, 2)) for _, density in groups]
        del denoiser
        free()

    # The GPU's clock sinks as it heats up: the baseline is measured at both ends, and stands for what lies between.
    again = Measured(editor, ceiling)
    _stock(again, sizes)
    for name, row in again.forward.items():
        measured.forward[name]["ms_at_the_end"] = row["ms"]

    measured.deviations |= {name: _deviation(states["bf16"], other) for name, other in states.items() if name != "bf16"}
    for name in [way for way in ways if way != "bf16"]:
        pairs = list(zip(rewards["bf16"], rewards[name], strict=True))
        ranks = statistics.mean(_ranks(exact, found) for exact, found in pairs)
        # What all candidates have in common ranks none of them.
        errors = [float((found - exact).std() / exact.std()) for exact, found in pairs]
        measured.deviations[name] |= {
            "acd_rank_correlation": ranks,
            "acd_error_over_spread": statistics.mean(errors),
        }
    return measured


def main() -> None:
    """Measure FLUX.1 Kontext and write."""
    measured = measure(KONTEXT, attention=True)
    measured.show()
    large, small = (f"{side}x{batch}" for side, batch in (LARGE, SMALL))
    peaks = [measured.forward[f"bf16, {which} {large}"]["peak_mib"] for which in ("recorded", "not recorded")]
    figures = {
        "speedup_1024": Figure(measured.speedup(f"bf16, recorded {large}"), "x stock eager", "at least 1.30"),
        "matmul_share_1024": Figure(measured.matmul_share(f"bf16, recorded {large}"), "fraction", "at least 0.74"),
        "speedup_512": Figure(measured.speedup(f"bf16, recorded {small}"), "x stock eager", "at least 1.30"),
        "acd_overhead": Figure(measured.acd_overhead(large), "fraction", "at most 0.010"),
        "acd_peak_memory": Figure(peaks[0] - peaks[1], "MiB", "at most 64"),
        "speedup_fp8": Figure(
            measured.speedup(f"{ATTENTION}, recorded {large}"), "x stock eager", "at least 2.0", "rollout.fp8=all"
        ),
        "speedup_fp8_gemm": Figure(
            measured.speedup(f"fp8, recorded {large}"), "x stock eager", "at least 1.8", "rollout.fp8=gemm"
        ),
        "fp8_rank_correlation": Figure(measured.deviations[ATTENTION]["rank_correlation"], "Spearman", RANKS),
        "fp8_acd_rank_correlation": Figure(
            measured.deviations[ATTENTION]["acd_rank_correlation"],
            "Spearman",
            RANKS,
            f"mean of {GROUPS} groups of {ROLLOUT.group_size}: random weights leave candidates close together",
        ),
    }
    write("gpu_rollout", figures, measured.detail, module="benchmarks.gpu.rollout")


def recorded(denoiser: Denoiser, side: int, record: bool) -> AbstractContextManager[Any]:
    """Record attention inside the context, or do not."""
    if not record:
        return nullcontext()
    text = torch.from_numpy(random_conditions(denoiser.body, denoiser.config, side).text_valid)
    directions = denoiser.body.architecture.directions
    direction = "from_text" if "from_text" in directions else "to_text"
    return denoiser.recording(AcdConfig().chosen(denoiser.layers), square_mask(side), text, direction)


def _measure(measured: Measured, name: str, denoiser: Denoiser, size: tuple[int, int], *, record: bool = False) -> None:
    side, batch = size
    conditions = random_conditions(denoiser.body, denoiser.config, side)
    call = one_forward(denoiser.velocity(conditions), random_states(denoiser.body, conditions, batch))
    with recorded(denoiser, side, record):
        time = milliseconds(call, 3, 1)
        peak = peak_memory(call)
    print(f"{name} {side}x{batch}: {time:.1f} ms", flush=True)
    measured.forward[f"{name} {side}x{batch}"] = {
        "ms": time,
        "tflop_s": sum(forward_tflop(denoiser.config, side, batch)) / time * 1e3,
        "peak_mib": peak / MIB,
    }


def _stock(measured: Measured, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Measure stock diffusers, and return its group's states."""
    stock = stock_denoiser(measured.editor)
    for size in sizes:
        _measure(measured, "stock eager", stock, size)
    states, _ = _rollout(stock, 0, record=False)
    del stock
    free()
    return states


@torch.no_grad()
def _rollout(denoiser: Denoiser, group: int, *, record: bool) -> tuple[Tensor, Tensor]:
    """Return a group's states ``[T+1, G, N, C]``, and its densities on the host."""
    side = SMALL[0]
    conditions, mask = random_conditions(denoiser.body, denoiser.config, side), square_mask(side)
    shape = denoiser.latent_shape(conditions)
    seeds = range(1000 * group + 99, 1000 * group + 99 + ROLLOUT.group_size)
    reference, *deltas = (normal(seed, *shape) for seed in seeds)
    noise = candidate_noise(reference, torch.stack(deltas), mask, ROLLOUT.alpha_edit, ROLLOUT.alpha_base).to(DEVICE)
    sigmas = denoiser.sigmas(ROLLOUT.steps, conditions)
    with recorded(denoiser, side, record) as recorder:
        states = solver.integrate(denoiser.velocity(conditions), noise, sigmas)
    return states, recorder.density.float().cpu() if record else torch.empty(0)


def _deviation(reference: Tensor, other: Tensor) -> dict[str, float]:
    """Compare two rollouts from the same noise: their last states, and how a fixed scorer ranks the candidates.

    The scorer is the distance to a fixed point in the learner's own metric: the differences that the surrogate sees.
    """
    mask = square_mask(SMALL[0]).to(DEVICE)
    weights = metric.region_weights(mask, reference.shape[-1])
    target = normal(77, *reference.shape[2:]).to(DEVICE)
    spread = (reference[-1] - reference[-1].mean(dim=0)).square().mean().sqrt()
    scores = [metric.masked_distance(states[-1], target, weights) for states in (reference, other)]
    return {
        "relative_error_of_last_states": float((other[-1] - reference[-1]).norm() / reference[-1].norm()),
        "error_over_spread_within_group": float((other[-1] - reference[-1]).square().mean().sqrt() / spread),
        "rank_correlation": _ranks(*scores),
    }


def _ranks(first: Tensor, second: Tensor) -> float:
    return float(spearman_corrcoef(first.float().cpu(), second.float().cpu()))


if __name__ == "__main__":
    main()
