"""The update at full size: one anchor through one step forward and backward, and the chain's memory whatever T is.

    python -m benchmarks.gpu.update

Leaves ``benchmarks/results/gpu_update.json``. A DeepSpeed engine of one rank drives every backward pass but the stock
model's, which is diffusers with PEFT adapters as they come.
"""

from collections.abc import Callable
from typing import Any, get_args

import torch
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.measuring import (
    DEVICE,
    MIB,
    denoiser_of,
    forward_tflop,
    free,
    matmul_ceiling,
    milliseconds,
    peak_memory,
    random_conditions,
    random_states,
    show,
    stock_transformer,
)
from benchmarks.results import Figure, write
from deploy.planning.capacity import anchor_step_tflop
from learner import activations, distributed
from rc_grpo.algorithm import adjoint, solver
from rc_grpo.config import LearnerConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor.denoiser import Denoiser

SIDE = 1024
STEPS = 8
SMALL = (512, 4)
"""The default training size: all four anchors of a group together."""


def main() -> None:
    """Measure and write."""
    torch.backends.cuda.matmul.allow_tf32 = True
    ceiling = matmul_ceiling()
    transformer = stock_transformer()
    denoiser = denoiser_of(transformer)
    torch.manual_seed(0)
    denoiser.policy.load({name: tensor + 0.01 * torch.randn_like(tensor) for name, tensor in _weights(denoiser)})
    measured: dict[str, dict[str, float]] = {}
    gradients: dict[str, Tensor] = {}

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
        ours = transformer.attn_processors
        transformer.set_attn_processor(FluxAttnProcessor())
        _measure(measured, "stock eager, flash attention", chain(denoiser, SIDE, 1, 1, Tensor.backward), SIDE, 1)
        gradients["stock"] = _gradient(denoiser)
        transformer.set_attn_processor(ours)
    free()

    distributed.join(0, 1, distributed.rendezvous(), DEVICE, 600.0)
    trained = [parameter for parameter in denoiser.policy.weights().values() if isinstance(parameter, nn.Parameter)]
    engine = distributed.make_engine(transformer, trained, LearnerConfig(), 1)
    denoiser.through(engine)

    chains = {}
    for kind in get_args(Activations):
        transformer.disable_gradient_checkpointing()
        activations.arrange(denoiser.body, kind, compiled=True)
        _measure(measured, f"compiled, {kind}", chain(denoiser, SIDE, 1, 1, engine.backward), SIDE, 1)
        denoiser.forward = transformer
        gradients[kind] = _gradient(denoiser)
        denoiser.through(engine)
        for steps in (2, STEPS) if kind == "store" else ():
            call = chain(denoiser, SIDE, 1, steps, engine.backward)
            chains[steps] = {"ms": milliseconds(call, 2, 0), "peak_mib": peak_memory(call) / MIB}
            print(f"chain of {steps}: {chains[steps]}", flush=True)
    transformer.disable_gradient_checkpointing()
    activations.arrange(denoiser.body, "store", compiled=True)
    side, batch = SMALL
    _measure(measured, "compiled, store", chain(denoiser, side, batch, 1, engine.backward), side, batch)

    show(
        f"one anchor-step, forward and backward; matmul ceiling {ceiling:.0f} TFLOP/s",
        ("what", "ms", "TFLOP/s", "of the ceiling", "peak MiB"),
        [
            (name, row["ms"], row["tflop_s"], f"{row['tflop_s'] / ceiling:.1%}", row["peak_mib"])
            for name, row in measured.items()
        ],
    )
    show(
        "chain of T steps at 1024x1024 by the adjoint",
        ("T", "ms", "ms a step", "peak MiB"),
        [(steps, row["ms"], row["ms"] / steps, row["peak_mib"]) for steps, row in chains.items()],
    )
    agreement = {
        name: float(torch.nn.functional.cosine_similarity(gradient.double(), gradients["stock"].double(), dim=0))
        for name, gradient in gradients.items()
        if name != "stock"
    }
    show("cosine of the LoRA's gradient with stock eager flash", tuple(agreement), [tuple(agreement.values())])
    one = measured[f"compiled, store {SIDE}x1"]
    write(
        "gpu_update",
        {
            "anchor_step_ms": Figure(one["ms"], "ms", "at most 900", "1024x1024, all activations stored"),
            "peak_memory_t8_over_t2": Figure(
                chains[STEPS]["peak_mib"] / chains[2]["peak_mib"], "ratio", "at most 1.05"
            ),
            "chain_t8_over_steps": Figure(chains[STEPS]["ms"] / (STEPS * one["ms"]), "ratio", "at most 1.08"),
            "speedup": Figure(measured[f"stock eager, flash attention {SIDE}x1"]["ms"] / one["ms"], "x stock eager"),
            "gradient_cosine": Figure(min(agreement.values()), "cosine", "above 0.999", "with stock eager flash"),
        },
        {"matmul_ceiling_tflop_s": ceiling, "anchor_step": measured, "chain": chains, "gradient_cosine": agreement},
        module="benchmarks.gpu.update",
    )


def _weights(denoiser: Denoiser) -> list[tuple[str, Tensor]]:
    return list(denoiser.policy.weights().items())


def chain(
    denoiser: Denoiser, side: int, batch: int, steps: int, backprop: Callable[[Tensor], Any]
) -> Callable[[], Tensor]:
    """Return a call for the gradient of the last ``steps`` steps of a rollout, as the learner takes it on policy."""
    conditions = random_conditions(side)
    field = denoiser.velocity(conditions)
    sigmas = denoiser.sigmas(STEPS, conditions)[-steps - 1 :]
    with torch.no_grad():
        states = solver.integrate(field, random_states(side, batch), sigmas)
    pulls = torch.zeros_like(states)
    pulls[1:] = torch.randn(pulls[1:].shape, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(1)) * 1e-3
    return lambda: adjoint.backward(field, states, sigmas, pulls, backprop=backprop)


def _gradient(denoiser: Denoiser) -> Tensor:
    """Return the LoRA's gradient of one anchor-step by plain autograd, flat and float32."""
    parameters = list(denoiser.policy.weights().values())
    for parameter in parameters:
        parameter.grad = None
    chain(denoiser, SIDE, 1, 1, Tensor.backward)()
    flat = torch.cat([parameter.grad.float().flatten() for parameter in parameters if parameter.grad is not None])
    for parameter in parameters:
        parameter.grad = None
    return flat.cpu()


def _measure(
    measured: dict[str, dict[str, float]], name: str, call: Callable[[], Tensor], side: int, batch: int
) -> None:
    time = milliseconds(call, 3, 1)
    print(f"{name} {side}x{batch}: {time:.1f} ms", flush=True)
    tflop = anchor_step_tflop(*forward_tflop(side, batch))
    measured[f"{name} {side}x{batch}"] = {
        "ms": time,
        "tflop_s": tflop / time * 1e3,
        "peak_mib": peak_memory(call) / MIB,
    }


if __name__ == "__main__":
    main()
