"""What the backward pass of a step finds in memory, and what it computes again."""

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


def arrange(body: Body, activations: Activations, *, compiled: bool) -> None:
    """Set up how the blocks of a model that trains keep their activations, and compile them if asked for.

    - ``store``: all of them: 34 GiB an image of 1024x1024 in 12 billion parameters.
    - ``selective``: the blocks' inputs and what attention returned, which is dearest to compute and smallest to keep.
    - ``recompute``: the blocks' inputs alone.

    Recomputation is part of the compiled graph where there is one, so that its partitioner sees both passes.

    Args:
        body: the model.
        activations: which.
        compiled: whether blocks are compiled, one graph a shape.
    """
    if compiled:
        compiling.compile_blocks(body)
    if activations == "store":
        return
    run = partial(_run, contexts=_keep_attention if activations == "selective" else None)
    if compiled:
        run = compiling.with_varying_axes(torch.compile(run, fullgraph=True, dynamic=False), body)
    transformer: Any = body.transformer
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=run)


def _run(block: Any, *inputs: Any, contexts: Any) -> Any:
    keep = {} if contexts is None else {"context_fn": contexts}
    # In a dict for all blocks a transformer may tell each another thing, and has told the last when one runs again.
    inputs = tuple(dict(given) if isinstance(given, dict) else given for given in inputs)
    # Its forward alone: calling the block would enter the graph it has for passes without gradients.
    return checkpoint(block.forward, *inputs, use_reentrant=False, preserve_rng_state=False, **keep)


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(_context: Any, operation: Any, *_args: Any, **_named: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE
