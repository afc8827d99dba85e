"""The update at full size: one anchor through one step forward and backward, and the chain's memory whatever T is.

    python -m benchmarks.gpu.update

Leaves ``benchmarks/results/gpu_update.json``. A DeepSpeed engine of one rank drives every backward pass but the stock
model's, which is diffusers with PEFT adapters as they come.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.measuring import (
    DEVICE,
    KONTEXT,
    MIB,
    as_peft_has_it,
    body_of,
    forward_tflop,
    free,
    gradient_taken,
    matmul_ceiling,
    milliseconds,
    peak_memory,
    random_conditions,
    random_states,
    show,
    tokens_of,
    without_cache,
)
from benchmarks.results import Figure, write
from deploy.planning.work import anchor_step_tflop
from learner import activations, distributed
from rc_grpo.algorithm import adjoint, solver
from rc_grpo.config import EditorConfig, LearnerConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.fast.frozen_fp8 import quantise_frozen
from rc_grpo.editor.weights.policy import AdapterPolicy

SIDE = 1024
STEPS = 8
SMALL: tuple[tuple[Activations, int], ...] = (("store", 4), ("store", 2), ("selective", 4))
"""At the default training size, ``SMALL_SIDE``: policies, and how many of a group's four anchors go together."""
SMALL_SIDE = 512
STOCK, OURS = f"stock eager, flash attention {SIDE}x1", f"compiled, store {SIDE}x1"
IN_FLOAT8 = "compiled, store, fp8"


@dataclass
class Measured:
    """What one editor's updates came to.

    Attributes:
        editor: which.
        ceiling: TFLOP/s of its largest matrix product.
        anchor_step: by name, side and batch: milliseconds, TFLOP/s, peak memory.
        chains: by steps: milliseconds and peak memory.
        gradients: the LoRA's, by name.
        stock_checkpointed: stock diffusers does not fit without recomputing its activations.
    """

    editor: EditorConfig
    ceiling: float
    anchor_step: dict[str, dict[str, float]] = field(default_factory=dict)
    chains: dict[int, dict[str, float]] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    stock_checkpointed: bool = False

    @property
    def agreement(self) -> dict[str, float]:
        """Cosine of each gradient with stock diffusers'."""
        stock = self.gradients["stock"].double()
        return {
            name: float(torch.nn.functional.cosine_similarity(gradient.double(), stock, dim=0))
            for name, gradient in self.gradients.items()
            if name != "stock"
        }

    @property
    def in_float8(self) -> dict[str, Figure]:
        """What ``learner.fp8`` is measured by."""
        step, stock = self.anchor_step[f"{IN_FLOAT8} {SIDE}x1"]["ms"], self.anchor_step[STOCK]["ms"]
        return {
            "fp8_anchor_step_ms": Figure(step, "ms", "at most 620", "frozen projections in float8, forward and back"),
            "fp8_speedup": Figure(stock / step, "x stock eager", "at least 2.05"),
            "fp8_gradient_cosine": Figure(self.agreement["fp8"], "cosine", "at least 0.995", "with stock eager flash"),
        }

    @property
    def figures(self) -> dict[str, Figure]:
        """What every editor is measured by."""
        against = (
            "stock diffusers recomputes its activations: it does not fit otherwise" if self.stock_checkpointed else None
        )
        flat = self.chains[STEPS]["peak_mib"] / self.chains[2]["peak_mib"]
        exact = min(cosine for name, cosine in self.agreement.items() if name != "fp8")
        return {
            "speedup": Figure(
                self.anchor_step[STOCK]["ms"] / self.anchor_step[OURS]["ms"], "x stock eager", None, against
            ),
            "gradient_cosine": Figure(exact, "cosine", "above 0.999", "with stock eager flash"),
            "peak_memory_t8_over_t2": Figure(flat, "ratio", "at most 1.05"),
        }

    @property
    def detail(self) -> dict[str, Any]:
        """All of it."""
        return {
            "matmul_ceiling_tflop_s": self.ceiling,
            "anchor_step": self.anchor_step,
            "chain": self.chains,
            "gradient_cosine": self.agreement,
        }

    def show(self) -> None:
        """Print it."""
        show(
            f"one anchor-step of {self.editor.model}, both passes; matmul ceiling {self.ceiling:.0f} TFLOP/s",
            ("what", "ms", "TFLOP/s", "of the ceiling", "peak MiB"),
            [
                (name, row["ms"], row["tflop_s"], f"{row['tflop_s'] / self.ceiling:.1%}", row["peak_mib"])
                for name, row in self.anchor_step.items()
            ],
        )
        show(
            "chain of T steps at 1024x1024 by the adjoint",
            ("T", "ms", "ms a step", "peak MiB"),
            [(steps, row["ms"], row["ms"] / steps, row["peak_mib"]) for steps, row in self.chains.items()],
        )
        agreement = self.agreement
        show("cosine of the LoRA's gradient with stock eager flash", tuple(agreement), [tuple(agreement.values())])


def measure(
    editor: EditorConfig,
    kinds: Sequence[Activations] = get_args(Activations),
    small: Sequence[tuple[Activations, int]] = SMALL,
    *,
    in_float8: bool = False,
) -> Measured:
    """Measure an editor of full size: as diffusers and PEFT run it, and compiled under each activation policy.

    Args:
        editor: which.
        kinds: the policies.
        small: policies and batches at the default training size.
        in_float8: frozen projections are put into float8 at the end, and measured.
    """
    body = body_of(editor)
    measured = Measured(editor, matmul_ceiling(body.architecture, 4 * tokens_of(editor, SIDE).total))
    transformer: Any = body.transformer
    stock = dict(transformer.attn_processors)
    denoiser = Denoiser(body, editor, 0, AdapterPolicy)
    torch.manual_seed(0)
    denoiser.policy.load({name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in _weights(denoiser)})
    _stock(measured, denoiser, stock)

    distributed.join(0, 1, distributed.rendezvous(), DEVICE, 600.0)
    trained = [parameter for parameter in denoiser.policy.weights().values() if isinstance(parameter, nn.Parameter)]
    engine = distributed.make_engine(transformer, body.blocks, trained, LearnerConfig(), 1)
    denoiser.through(engine)

    for kind in kinds:
        transformer.disable_gradient_checkpointing()
        activations.arrange(body, kind, compiled=True)
        _measure(measured, f"compiled, {kind}", chain(denoiser, SIDE, 1, 1, engine.backward), SIDE, 1)
        denoiser.through(transformer)
        measured.gradients[kind] = _gradient(denoiser)
        denoiser.through(engine)
        for steps in (2, STEPS) if kind == "store" else ():
            call = chain(denoiser, SIDE, 1, steps, engine.backward)
            measured.chains[steps] = {"ms": milliseconds(call, 2, 0), "peak_mib": peak_memory(call) / MIB}
            print(f"chain of {steps}: {measured.chains[steps]}", flush=True)
    for kind, batch in small:
        transformer.disable_gradient_checkpointing()
        activations.arrange(body, kind, compiled=True)
        call = chain(denoiser, SMALL_SIDE, batch, 1, engine.backward)
        _measure(measured, f"compiled, {kind}", call, SMALL_SIDE, batch)
    if in_float8:
        transformer.disable_gradient_checkpointing()
        quantise_frozen(body)
        # An engine keeps the weights that it was made with, those that were replaced among them.
        denoiser.through(transformer)
        engine = distributed.make_engine(transformer, body.blocks, trained, LearnerConfig(), 1)
        free()
        denoiser.through(engine)
        torch._dynamo.reset()
        activations.arrange(body, "store", compiled=True)
        _measure(measured, IN_FLOAT8, chain(denoiser, SIDE, 1, 1, engine.backward), SIDE, 1)
        denoiser.through(transformer)
        measured.gradients["fp8"] = _gradient(denoiser)
    return measured


def main() -> None:
    """Measure FLUX.1 Kontext and write."""
    measured = measure(KONTEXT, in_float8=True)
    measured.show()
    one, chains = measured.anchor_step[OURS], measured.chains
    together, halves = (measured.anchor_step[f"compiled, {name}"]["ms"] for name in ("selective 512x4", "store 512x2"))
    figures = {
        "anchor_step_ms": Figure(one["ms"], "ms", "at most 780", "1024x1024, all activations stored"),
        "halves_stored_speedup": Figure(
            together / (2 * halves),
            "x all four recomputed",
            None,
            "four anchors at 512x512, two at a time with activations stored, against all at once, selective",
        ),
        "chain_t8_over_steps": Figure(chains[STEPS]["ms"] / (STEPS * one["ms"]), "ratio", "at most 1.08"),
    }
    every = figures | measured.figures | measured.in_float8
    write("gpu_update", every, measured.detail, module="benchmarks.gpu.update")


def _stock(measured: Measured, denoiser: Denoiser, processors: Mapping[str, Any]) -> None:
    """Measure diffusers and PEFT as they come; recomputing activations where storing them does not fit."""
    transformer = denoiser.transformer
    ours = dict(transformer.attn_processors)
    transformer.set_attn_processor(dict(processors))
    denoiser.through(without_cache(transformer))
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]), as_peft_has_it(transformer):
        try:
            chain(denoiser, SIDE, 1, 1, Tensor.backward)()
        except torch.OutOfMemoryError:
            measured.stock_checkpointed = True
        free()
        if measured.stock_checkpointed:
            transformer.enable_gradient_checkpointing()
        name = STOCK.rsplit(" ", 1)[0]
        _measure(measured, name, chain(denoiser, SIDE, 1, 1, Tensor.backward), SIDE, 1)
        measured.gradients["stock"] = _gradient(denoiser)
    transformer.disable_gradient_checkpointing()
    transformer.set_attn_processor(ours)
    denoiser.through(transformer)
    free()


def _weights(denoiser: Denoiser) -> list[tuple[str, Tensor]]:
    return list(denoiser.policy.weights().items())


def chain(
    denoiser: Denoiser, side: int, batch: int, steps: int, backprop: Callable[[Tensor], Any]
) -> Callable[[], Tensor]:
    """Return a call for the gradient of the last ``steps`` steps of a rollout, as the learner takes it on policy."""
    conditions = random_conditions(denoiser.body, denoiser.config, side)
    field = denoiser.velocity(conditions)
    sigmas = denoiser.sigmas(STEPS, conditions)[-steps - 1 :]
    with torch.no_grad():
        states = solver.integrate(field, random_states(denoiser.body, conditions, batch), sigmas)
    pulls = torch.zeros_like(states)
    generator = torch.Generator(denoiser.device).manual_seed(1)
    pulls[1:] = torch.randn(pulls[1:].shape, device=denoiser.device, generator=generator) * 1e-3
    return lambda: adjoint.backward(field, states, sigmas, pulls, backprop=backprop)


def _gradient(denoiser: Denoiser) -> Tensor:
    """Return the LoRA's gradient of one anchor-step by plain autograd, flat and float32."""
    parameters = list(denoiser.policy.weights().values())
    for parameter in parameters:
        parameter.grad = None
    chain(denoiser, SIDE, 1, 1, Tensor.backward)()
    return gradient_taken(parameters)


def _measure(measured: Measured, name: str, call: Callable[[], Tensor], side: int, batch: int) -> None:
    time = milliseconds(call, 3, 1)
    print(f"{name} {side}x{batch}: {time:.1f} ms", flush=True)
    tflop = anchor_step_tflop(*forward_tflop(measured.editor, side, batch))
    measured.anchor_step[f"{name} {side}x{batch}"] = {
        "ms": time,
        "tflop_s": tflop / time * 1e3,
        "peak_mib": peak_memory(call) / MIB,
    }


if __name__ == "__main__":
    main()
