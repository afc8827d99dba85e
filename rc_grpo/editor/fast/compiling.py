"""Regional compilation: one graph for each kind of block, shared by all blocks of that kind."""

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rc_grpo.editor.family import Body

GRAPHS = 64
"""Graphs that one kind of block may have: one for each image size and batch, with and without recording."""

CHOICES = {"deterministic": True, "dynamic_scale_rblock": False}
"""Of Inductor, between kernels that round differently: never by timing, nor, once it has seen how many registers one
takes, among smaller pieces of a sum. They go with each graph: what its module is told is forgotten with the first one,
after which PyTorch restores `torch.use_deterministic_algorithms`, and that sets it too."""


def compile_blocks(body: Body) -> None:
    """Compile the blocks for the shapes they meet, each shape once; nothing happens before the first call.

    Shapes are constants but for axes that differ from task to task (`Body.varying`): dynamic ones are slower, and broke
    inductor when a batch changed under gradients. Inductor may not choose by timing between kernels that round
    differently; graphs compiled apart still differ in their last bits.
    """
    run = compile_run(_call, body)
    for block in body.blocks:
        # What `Module.compile` would set.
        block._compiled_call_impl = partial(run, block)


def compile_run(run: Callable[..., Any], body: Body) -> Callable[..., Any]:
    """Compile what runs a block, as `compile_blocks` does blocks themselves.

    Args:
        run: takes a block and its inputs.
        body: the block's.
    """
    _prepare()

    def apart(block: Any, *inputs: Any, **named: Any) -> Any:
        # Parts of one tensor would be copied on their way into the next graph, and their gradients on the way back: the
        # graph that makes them may as well write them apart.
        made = run(block, *inputs, **named)
        return tuple(one.clone() if isinstance(one, Tensor) else one for one in made) if type(made) is tuple else made

    # Called outside the graph: inside, nothing could be marked any more.
    return with_varying_axes(torch.compile(apart, fullgraph=True, dynamic=False, options=dict(CHOICES)), body)


def _call(block: Any, *inputs: Any, **named: Any) -> Any:
    return block._call_impl(*inputs, **named)


def _prepare() -> None:
    # What is kept for the next process is found by what was traced, `torch.autograd.Function`s' passes included. Of our
    # operations a graph has the names alone: their gradients are told apart by the tag.
    torch._functorch.config.autograd_cache_allow_custom_autograd_functions = True
    torch.compiler.config.cache_key_tag = operations()
    # Beyond its limit PyTorch runs eager code without a word.
    torch._dynamo.config.recompile_limit = GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = 8 * GRAPHS


@cache
def operations() -> str:
    """Return a digest of the sources of all operations in this folder."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def with_varying_axes(call: Callable[..., Any], body: Body) -> Callable[..., Any]:
    """Return a compiled call of a body's block that takes any length along the axes that vary."""

    def marked(*inputs: Any, **named: Any) -> Any:
        # Behind a prefix the target's states are a slice of the whole sequence, whose length would be in their strides.
        inputs, named = tuple(map(_dense, inputs)), {name: _dense(value) for name, value in named.items()}
        for tensor, axis in body.varying(inputs, named):
            torch._dynamo.maybe_mark_dynamic(tensor, axis)
        return call(*inputs, **named)

    return marked


def _dense(value: Any) -> Any:
    # A batch of one counts as dense whatever its stride: by way of one axis it gets that of its shape.
    return value.contiguous().view(-1).view(value.shape) if isinstance(value, Tensor) else value
