"""What the backward pass of a step finds in memory, and what it computes again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from rc_grpo.config.learner import Activations
from rc_grpo.editor.family import Body
from rc_grpo.editor.fast import compiling
from rc_grpo.editor.fast.flash_attention import OPERATION

_ATTENTION = {
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    OPERATION,
}

BlockRun = Callable[..., Any]
"""Takes a block and its inputs, and returns what it makes of them."""


def arrange(body: Body, activations: Activations, *, compiled: bool, sharded: bool = False) -> None:
    """Set up how the blocks of a model that trains keep their activations, and compile them if asked for.

    - ``store``: all of them: 34 GiB an image of 1024x1024 in 12 billion parameters.
    - ``selective``: the blocks' inputs and what attention returned, which is dearest to compute and smallest to keep.
    - ``recompute``: the blocks' inputs alone.

    Recomputation is part of the compiled graph where there is one, so that its partitioner sees both passes.

    Args:
        body: the model.
        activations: which.
        compiled: whether blocks are compiled, one graph a shape.
        sharded: hooks around each block fetch what it is made of (ZeRO 3). Neither a graph nor recomputation can go
            over these: both are within.
    """
    keep = _keep_attention if activations == "selective" else None
    recompute = None if activations == "store" else partial(_recompute, contexts=keep)
    if sharded:
        _run_within_hooks(body, recompute or _run, compiled=compiled)
        return
    if compiled:
        compiling.compile_blocks(body)
    if recompute is not None:
        run = compiling.compile_run(recompute, body) if compiled else recompute
        body.transformer.enable_gradient_checkpointing(gradient_checkpointing_func=run)


def _run_within_hooks(body: Body, trained: BlockRun, *, compiled: bool) -> None:
    still = _run
    if compiled:
        still, trained = (compiling.compile_run(run, body) for run in (still, trained))

    def within(block: Any, *inputs: Any, **named: Any) -> Any:
        return (trained if torch.is_grad_enabled() else still)(block, *inputs, **named)

    for block in body.blocks:
        block.within_hooks = block.forward
        block.forward = partial(within, block)


def _run(block: Any, *inputs: Any, **named: Any) -> Any:
    return block.within_hooks(*inputs, **named)


def _recompute(block: Any, *inputs: Any, contexts: Any, **named: Any) -> Any:
    keep = {} if contexts is None else {"context_fn": contexts}
    # In a dict for all blocks a transformer may tell each another thing, and has told the last when one runs again.
    inputs, named = tuple(map(_own, inputs)), {name: _own(given) for name, given in named.items()}
    # Its forward alone: calling the block would enter the graph it has for passes without gradients.
    forward = getattr(block, "within_hooks", block.forward)
    return checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **keep, **named)


def _own(given: Any) -> Any:
    return dict(given) if isinstance(given, dict) else given


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_context: Any, operation: Any, *_args: Any, **_named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE


# By which PyTorch knows a compiled graph again that recomputes by this policy, and keeps it for the next process.
_keep_attention.cache_hash = " ".join(sorted(map(str, _ATTENTION)))  # type: ignore[attr-defined]
