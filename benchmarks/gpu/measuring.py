"""Clocks, ceilings and the full-size model, for every benchmark on a GPU."""

import gc
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rc_grpo.algorithm.solver import Velocity
from rc_grpo.config import EditorConfig
from rc_grpo.editor import compiling
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.families.flux_kontext import full_size
from rc_grpo.editor.families.flux_kontext.transformer import KontextBody
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.merged import MergedPolicy
from rc_grpo.editor.policy import AdapterPolicy
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal

DEVICE = torch.device("cuda")
EDITOR = EditorConfig(model=FULL_SIZE, device="cuda", compile=True)
TEXT_TOKENS = 512
MIB = 2**20
console = Console(width=140)


def milliseconds(call: Callable[[], Any], repeats: int = 5, warm_up: int = 2) -> float:
    """Return the median time of a call on the device."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def peak_memory(call: Callable[[], Any]) -> int:
    """Return the most bytes that tensors held during a call."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def free() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    torch.cuda.empty_cache()


def matmul_ceiling() -> float:
    """Return the TFLOP/s of the transformer's largest product in bfloat16, alone and over and over."""
    tokens, out, width = 34816, 15360, 3072
    a = torch.randn(tokens, width, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn(width, out, device=DEVICE, dtype=torch.bfloat16)
    return 2 * tokens * out * width / milliseconds(lambda: a @ b, 50, 5) / 1e9


def forward_tflop(side: int, batch: int) -> tuple[float, float]:
    """Return the TFLOP of one forward pass at ``side`` pixels: of its projections, of its attention."""
    size = load_architecture(EDITOR)
    projections, attention = size.forward_tflop(size.tokens(EDITOR.model_copy(update={"resolution": side})))
    return batch * projections, batch * attention


def stock_transformer(**changes: Any) -> FluxTransformer2DModel:
    """Build the transformer as diffusers runs it; ``changes`` are to its architecture."""
    return full_size.build_transformer(DEVICE, torch.bfloat16, **changes)


def denoiser_of(transformer: FluxTransformer2DModel, policy: PolicyMaker = AdapterPolicy) -> Denoiser:
    """Return the policy around a transformer."""
    return Denoiser(KontextBody(transformer, EDITOR, full_size.TOKEN), EDITOR, 0, policy)


def rollout_denoiser_of(transformer: FluxTransformer2DModel, *, fp8: bool) -> Denoiser:
    """Return the policy as a rollout worker holds it, its blocks compiled."""
    body = KontextBody(transformer, EDITOR, full_size.TOKEN)
    body.arrange(fp8=fp8)
    denoiser = Denoiser(body, EDITOR, 0, MergedPolicy)
    compiling.compile_blocks(body.blocks)
    return denoiser


def random_conditions(side: int) -> Conditions:
    """Return conditions of the full-size model for an image of ``side`` pixels."""
    tokens = (side // full_size.TOKEN) ** 2
    arrays = {"prompt": (TEXT_TOKENS, 4096), "pooled": (768,), "reference": (tokens, 64)}
    return Conditions(
        height=side,
        width=side,
        arrays={name: normal(index, *shape).numpy() for index, (name, shape) in enumerate(arrays.items())},
        text_valid=np.arange(TEXT_TOKENS) < 24,
    )


def random_states(side: int, batch: int) -> Tensor:
    """Return latents ``[B, N, 64]`` float32 on the device."""
    return normal(9, batch, (side // full_size.TOKEN) ** 2, 64).to(DEVICE)


def square_mask(side: int) -> Tensor:
    """Return a token mask ``[N]`` bool with a square of half the image's side in it."""
    tokens = side // full_size.TOKEN
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    mask[tokens // 4 : 3 * tokens // 4, tokens // 4 : 3 * tokens // 4] = True
    return mask.flatten()


def one_forward(field: Velocity, x: Tensor) -> Callable[[], Tensor]:
    """Return a call of the velocity in the middle of the schedule, without gradients."""

    def call() -> Tensor:
        with torch.no_grad():
            return field(x, 0.5)

    return call


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(
            *(
                f"{cell:,.3g}"
                if isinstance(cell, float) and cell < 100
                else f"{cell:,.0f}"
                if isinstance(cell, float)
                else str(cell)
                for cell in row
            )
        )
    console.print(table)
