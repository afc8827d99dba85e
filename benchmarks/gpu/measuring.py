"""Clocks, ceilings and models of full size, for every benchmark on a GPU."""

import gc
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from rc_grpo.algorithm.solver import Velocity
from rc_grpo.config import EditorConfig
from rc_grpo.config.rollout import Fp8
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.family import Architecture, Body, Forward, Tokens
from rc_grpo.editor.fast import compiling
from rc_grpo.editor.files import FULL_SIZE
from rc_grpo.editor.loading import load_architecture
from rc_grpo.editor.registry import find
from rc_grpo.editor.stock.family import StockFamily
from rc_grpo.editor.weights.merged import MergedPolicy
from rc_grpo.messages import Conditions
from rc_grpo.seeds import normal

DEVICE = torch.device("cuda")
KONTEXT = EditorConfig(model=FULL_SIZE, device="cuda", compile=True)
TOKEN, TEXT_TOKENS, INSTRUCTION = 16, 512, 24
"""A token's side in pixels and Kontext's slots of text; how many tokens of a text are the instruction's own."""
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


def gradient_taken(parameters: Iterable[Tensor]) -> Tensor:
    """Return the gradients side by side, in float32 on the host, and take them off.

    What leads to no output, as the text of a last block, has no gradient, or one of zeros.
    """
    leaves = list(parameters)
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    flat = torch.cat([gradient.float().flatten() for gradient in gradients]).cpu()
    for leaf in leaves:
        leaf.grad = None
    return flat


def free() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    torch.cuda.empty_cache()


def matmul_ceiling(size: Architecture, tokens: int) -> float:
    """Return the TFLOP/s of a transformer's largest product in bfloat16, alone and over and over."""
    out, width = max(size.projections.values(), key=lambda shape: shape[0] * shape[1])
    a = torch.randn(tokens, width, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn(width, out, device=DEVICE, dtype=torch.bfloat16)
    return 2 * tokens * out * width / milliseconds(lambda: a @ b, 50, 5) / 1e9


def tokens_of(editor: EditorConfig, side: int) -> Tokens:
    """Return the lengths of an edit at ``side`` pixels."""
    return load_architecture(editor).tokens(editor.model_copy(update={"resolution": side}))


def forward_tflop(editor: EditorConfig, side: int, batch: int) -> tuple[float, float]:
    """Return the TFLOP of one forward pass at ``side`` pixels: of its projections, of its attention."""
    projections, attention = load_architecture(editor).forward_tflop(tokens_of(editor, side))
    return batch * projections, batch * attention


def body_of(
    editor: EditorConfig, dtype: torch.dtype = torch.bfloat16, device: torch.device = DEVICE, **changes: Any
) -> Body:
    """Build an architecture with random weights; ``changes`` are to it, such as ``num_layers``."""
    family = cast(StockFamily, find(editor))
    full_size = family.full_size(editor)
    if full_size is None:
        raise ValueError(f"{editor.model} is no architecture of full size")
    transformer = full_size.build_transformer(device, dtype, **changes)
    body = family.body(transformer, editor)
    there = dict(transformer.named_modules())
    size = body.architecture
    left = {name: shape for name, shape in size.projections.items() if name in there}
    body.architecture = replace(size, layers=len(body.blocks), projections=left)
    return body


def stock_denoiser(editor: EditorConfig, **changes: Any) -> Denoiser:
    """Return the model as diffusers runs it, with a handle of ours."""
    body = body_of(editor, **changes)
    own = dict(body.transformer.attn_processors)
    denoiser = Denoiser(body, editor, 0, MergedPolicy)
    denoiser.transformer.set_attn_processor(own)
    denoiser.through(without_cache(denoiser.transformer))
    return denoiser


def without_cache(transformer: Any) -> Forward:
    """Return a call of a transformer with diffusers' own attention, to which our cache of a prefix says nothing."""

    def call(**named: Any) -> Any:
        return transformer(**{name: value for name, value in named.items() if not name.startswith("kv_cache")})

    return call


def rollout_denoiser(editor: EditorConfig, *, fp8: Fp8, **changes: Any) -> Denoiser:
    """Return the policy as a rollout worker holds it, its blocks compiled."""
    body = body_of(editor, **changes)
    body.arrange(fp8=fp8)
    denoiser = Denoiser(body, editor, 0, MergedPolicy)
    compiling.compile_blocks(body)
    return denoiser


def random_conditions(body: Body, editor: EditorConfig, side: int) -> Conditions:
    """Return conditions of a model for an image of ``side`` pixels: the canary's arrays, at full length."""
    size, canary = tokens_of(editor, side), body.canary()
    small, slots = len(canary.arrays["reference"]), len(canary.arrays.get("slots", ()))
    # Slots of a text stand for a source's tokens, so many each; a text's own are in front of them, and behind.
    standing = size.sources * slots // small
    text = size.text + standing
    lengths = {len(canary.arrays["prompt"]): text, small: size.sources}
    shapes = {
        name: (lengths[len(array)], array.shape[1]) if array.ndim == 2 else array.shape
        for name, array in canary.arrays.items()
        if name != "slots"
    }
    arrays = {name: normal(index, *shape).numpy() for index, (name, shape) in enumerate(sorted(shapes.items()))}
    seen = round(size.sources**0.5) * body.architecture.token
    return Conditions(
        height=side,
        width=side,
        arrays=arrays | ({"slots": 1 + np.arange(standing)} if slots else {}),
        text_valid=np.arange(text - standing - (1 if slots else 0)) < INSTRUCTION,
        sources=((seen, seen),),
    )


def random_states(body: Body, conditions: Conditions, batch: int) -> Tensor:
    """Return latents ``[B, N, C]`` float32 on the model's device."""
    return normal(9, batch, *body.latent_shape(conditions)).to(next(body.transformer.parameters()).device)


def square_mask(side: int) -> Tensor:
    """Return a token mask ``[N]`` bool with a square of half the image's side in it."""
    tokens = side // TOKEN
    mask = torch.zeros(tokens, tokens, dtype=torch.bool)
    mask[tokens // 4 : 3 * tokens // 4, tokens // 4 : 3 * tokens // 4] = True
    return mask.flatten()


@contextmanager
def as_peft_has_it(transformer: nn.Module) -> Iterator[None]:
    """Have a LoRA multiply in float32 inside the context, as PEFT's own do, at tensor-core rate; ours is otherwise."""
    layers = [module for module in transformer.modules() if isinstance(module, LoraLayer)]
    ours = [(part, part[lora.ADAPTER]) for layer in layers for part in (layer.lora_A, layer.lora_B)]
    for part, factor in ours:
        part[lora.ADAPTER] = nn.utils.skip_init(nn.Linear, *reversed(factor.weight.shape), bias=False, device="meta")
        part[lora.ADAPTER].weight = factor.weight
    for layer in layers:
        layer.cast_input_dtype_enabled = True
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        for part, factor in ours:
            part[lora.ADAPTER] = factor
        for layer in layers:
            layer.cast_input_dtype_enabled = False


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
