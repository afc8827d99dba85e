"""Regional compilation: one graph for each kind of block, shared by all blocks of that kind."""

from collections.abc import Sequence

import torch
from torch import nn

GRAPHS = 64
"""Graphs that one kind of block may have: one for each image size and batch, with and without recording."""


def compile_blocks(blocks: Sequence[nn.Module]) -> None:
    """Compile the blocks for the shapes they meet, each shape once; nothing happens before the first call.

    Shapes are constants: dynamic ones are slower, and broke inductor when a batch changed under gradients. Inductor may
    not choose by timing between kernels that round differently; graphs compiled apart still differ in their last bits.
    """
    torch._inductor.config.deterministic = True
    # Beyond its limit PyTorch runs eager code without a word.
    torch._dynamo.config.recompile_limit = GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = 8 * GRAPHS
    for block in blocks:
        block.compile(fullgraph=True, dynamic=False)
