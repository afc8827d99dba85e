"""What it saves to compute a task's text and source once: rollouts, updates, and a whole run of Qwen-Image-2.1.

    python -m benchmarks.gpu.prefix [--parts rollout update whole doctor]

At full size with random weights. Each part runs in a process of its own, and leaves its figures under
``build/gpu_prefix``; what lies there of all parts goes to ``benchmarks/results/gpu_prefix.json``.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from diffusers.models.transformers.transformer_qwenimage21 import QwenImage21KVCache
from torch import Tensor, nn

from benchmarks.gpu import families, parts
from benchmarks.gpu.measuring import (
    DEVICE,
    MIB,
    body_of,
    forward_tflop,
    free,
    gradient_taken,
    peak_memory,
    random_conditions,
    random_states,
    rollout_denoiser,
    show,
    stock_denoiser,
)
from benchmarks.gpu.parts import Part
from benchmarks.results import Figure, write
from learner import activations, distributed
from rc_grpo.algorithm import adjoint, solver
from rc_grpo.algorithm.adjoint import Backprop
from rc_grpo.config import EditorConfig, LearnerConfig
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.weights.policy import AdapterPolicy

MODULE, OUT = "benchmarks.gpu.prefix", Path("build/gpu_prefix")
FAMILY = "qwen_image_21"
EDITOR = families.EDITORS[FAMILY]
SIDE, GROUP, STEPS, ANCHORS = 1024, 12, 8, 4
Mode = Literal["none", "shared"]
Value = TypeVar("Value")
MODES: tuple[Mode, ...] = ("none", "shared")


def rollout() -> Part:
    """Measure a group's rollout: ours with and without, and stock diffusers' without its cache and with it."""
    measured: dict[str, dict[str, float]] = {}
    states: dict[str, Tensor] = {}

    def measure(name: str, denoiser: Denoiser) -> None:
        integrate(denoiser, 1)  # Compiles.
        peak = peak_memory(lambda: integrate(denoiser, 1)) / MIB
        seconds, states[name] = timed(lambda: integrate(denoiser, STEPS))
        apart = float((states[name] - states["stock"])[-1].norm() / states["stock"][-1].norm())
        measured[name] = {"seconds": seconds, "peak_mib": peak, "from_stock": apart}
        print(f"{name}: {seconds:.2f} s a group", flush=True)

    stock = stock_denoiser(EDITOR)
    measure("stock", stock)
    stock.through(StockCached(stock.transformer))
    measure("stock, cached", stock)
    del stock
    free()
    for mode in MODES:
        denoiser = rollout_denoiser(sharing(mode), fp8=False)
        measure(mode, denoiser)
        del denoiser
        free()
    setting = f"{SIDE}x{SIDE}, {GROUP} candidates, {STEPS} steps, bfloat16"
    work = sum(forward_tflop(EDITOR, SIDE, GROUP)) * STEPS
    rows = [(name, *row.values(), work / row["seconds"]) for name, row in measured.items()]
    show(setting, ("what", "s", "peak MiB", "from stock's states", "TFLOP/s, of the work unshared"), rows)
    taken = {name: row["seconds"] / measured["shared"]["seconds"] for name, row in measured.items()}
    return {
        "rollout_speedup": Figure(taken["none"], "x", "at least 1.7", setting),
        "over_stock": Figure(taken["stock"], "x stock eager", "at least 2.2", "its own cache off"),
        "over_stock_cached": Figure(taken["stock, cached"], "x stock eager", None, "its own cache on"),
    }, measured


def update() -> Part:
    """Measure the gradient of a group: so many anchors through all steps, one at a time."""
    body = body_of(EDITOR)
    denoiser = Denoiser(body, EDITOR, 0, AdapterPolicy)
    torch.manual_seed(0)
    weights = denoiser.policy.weights()
    denoiser.policy.load({name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in weights.items()})
    trained = [tensor for tensor in denoiser.policy.weights().values() if isinstance(tensor, nn.Parameter)]
    activations.arrange(body, "store", compiled=True)
    gradients: dict[str, Tensor] = {}
    for mode in MODES:
        denoiser.config = sharing(mode)
        learning(denoiser, Tensor.backward, anchors=1, steps=2)()
        gradients[mode] = gradient_taken(trained)

    distributed.join(0, 1, distributed.rendezvous(), DEVICE, 600.0)
    engine = distributed.make_engine(body.transformer, body.blocks, trained, LearnerConfig(), 1)
    denoiser.through(engine)
    measured: dict[str, dict[str, float]] = {}
    for mode in MODES:
        denoiser.config = sharing(mode)
        peak = peak_memory(learning(denoiser, engine.backward, anchors=1, steps=1)) / MIB
        seconds, _ = timed(learning(denoiser, engine.backward, ANCHORS, STEPS))
        measured[mode] = {"seconds": seconds, "peak_mib": peak}
        print(f"{mode}: {seconds:.2f} s an update of a group", flush=True)
    show("an update of a group", ("what", "s", "peak MiB"), [(mode, *row.values()) for mode, row in measured.items()])
    both = (gradient.double() for gradient in gradients.values())
    cosine = torch.nn.functional.cosine_similarity(*both, dim=0)
    setting = f"{SIDE}x{SIDE}, {ANCHORS} anchors through {STEPS} steps, one at a time, activations stored"
    speedup = measured["none"]["seconds"] / measured["shared"]["seconds"]
    return {
        "update_speedup": Figure(speedup, "x", "at least 1.5", setting),
        "gradient_cosine": Figure(float(cosine), "cosine", "above 0.999", "shared against not, two steps"),
    }, measured


def whole() -> Part:
    """Run the whole system for two updates with the prefix shared on both sides."""
    figures, detail = families.whole(FAMILY)
    ratio = math.exp(figures["whole_max_abs_log_ratio"].value)
    return {
        "ratio_on_policy": Figure(ratio, "ratio", "1", "the furthest, in two updates of the whole system")
    } | figures, detail


PARTS: dict[str, Callable[[], Part]] = {
    "rollout": rollout,
    "update": update,
    "whole": whole,
    "doctor": lambda: families.doctor(FAMILY),
}


class StockCached:
    """The transformer as the stock pipeline calls it, at every step of a task: the first fills diffusers' own cache.

    Args:
        transformer: with diffusers' own attention.
    """

    def __init__(self, transformer: Any) -> None:
        self._transformer = transformer
        self._cache: QwenImage21KVCache | None = None

    def __call__(self, **named: Any) -> Any:
        """Return what the transformer returns."""
        is_first = bool(named["timestep"][0] == 1.0)
        if is_first:
            self._cache = QwenImage21KVCache(len(self._transformer.transformer_blocks))
        mode = "extract" if is_first else "cached"
        return self._transformer(**named | {"kv_cache": self._cache, "kv_cache_mode": mode})


def sharing(mode: Mode) -> EditorConfig:
    """Return the editor that shares a prefix, or does not."""
    return EDITOR.model_copy(update={"prefix": mode})


@torch.no_grad()
def integrate(denoiser: Denoiser, steps: int) -> Tensor:
    """Return the states ``[T+1, G, N, C]`` of a group's first steps."""
    conditions = random_conditions(denoiser.body, EDITOR, SIDE)
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(STEPS, conditions)[: steps + 1]
    with field.held():
        return solver.integrate(field, random_states(denoiser.body, conditions, GROUP), sigmas)


def learning(denoiser: Denoiser, backward: Backprop, anchors: int, steps: int) -> Callable[[], None]:
    """Return a call for the gradient of so many anchors through the last steps, as the learner takes it on policy."""
    conditions = random_conditions(denoiser.body, EDITOR, SIDE)
    field, sigmas = denoiser.velocity(conditions), denoiser.sigmas(STEPS, conditions)[-steps - 1 :]
    start = random_states(denoiser.body, conditions, anchors)
    with torch.no_grad(), field.held():
        path = torch.cat([solver.integrate(field, one, sigmas) for one in start.split(1)], dim=1)
    generator = torch.Generator(DEVICE).manual_seed(1)
    pulls = torch.randn(path.shape, device=DEVICE, generator=generator) * 1e-3

    def learn() -> None:
        with field.trained(backward) as backprop:
            for states, pull in zip(path.split(1, dim=1), pulls.split(1, dim=1), strict=True):
                adjoint.backward(field, states, sigmas, pull, backprop=backprop)

    return learn


def timed(call: Callable[[], Value]) -> tuple[float, Value]:
    """Return the seconds of a call on the device, and what it returned."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    value = call()
    torch.cuda.synchronize()
    return time.perf_counter() - started, value


def main() -> None:
    """Run the parts, one process each, and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        (part,) = options.parts
        parts.leave(OUT / f"{part}.json", PARTS[part]())
        return
    failed = [part for part in options.parts if parts.apart(MODULE, "--parts", part, "--here")]
    found = parts.gather({part: OUT / f"{part}.json" for part in PARTS})
    figures = {name: figure for measured, _ in found.values() for name, figure in measured.items()}
    print(write("gpu_prefix", figures, {part: detail for part, (_, detail) in found.items()}, module=MODULE))
    parts.end(failed)


if __name__ == "__main__":
    main()
