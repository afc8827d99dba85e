"""What one compiled block hands to the next takes no copy, and what it computes does not depend on the clock."""

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch._inductor import config as inductor
from torch._inductor.graph import GraphLowering
from torch._inductor.utils import fresh_cache

from rc_grpo.editor.family import Body
from rc_grpo.editor.fast import compiling

PLAIN = cast(Body, SimpleNamespace(varying=lambda inputs, named: ()))


def halves(_block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    joint = x * 2
    return joint[:, :2], joint[:, 2:]


def squared(_block: Any, x: Tensor) -> Tensor:
    return x @ x.mT  # Of which no kernel is written: that would take seconds.


def test_parts_of_one_tensor_are_written_apart_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(compiling, "CHOICES", {})
    x = torch.randn(3, 5, 4, requires_grad=True)
    text, image = compiling.compile_run(halves, PLAIN)(None, x)
    assert text.is_contiguous()
    assert image.is_contiguous()
    assert text.untyped_storage().data_ptr() != image.untyped_storage().data_ptr()
    # Slicing outside of a graph would put its gradient into zeros of the size of the whole.
    assert text.grad_fn is image.grad_fn
    torch.testing.assert_close((text, image), halves(None, x))
    (gradient,) = torch.autograd.grad(text.sum() + 3 * image.sum(), x)
    torch.testing.assert_close(gradient, torch.cat([torch.full((3, 2, 4), 2.0), torch.full((3, 3, 4), 6.0)], dim=1))


def test_no_graph_of_a_process_is_chosen_by_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    by_the_clock: list[bool] = []
    generate = GraphLowering.codegen

    def seen(graph: GraphLowering) -> Any:
        by_the_clock.append(not inductor.deterministic or inductor.dynamic_scale_rblock)
        return generate(graph)

    monkeypatch.setattr(GraphLowering, "codegen", seen)
    run = compiling.compile_run(squared, PLAIN)
    with fresh_cache():
        # The second graph is where PyTorch has forgotten what its module was told.
        for tokens in (4, 6):
            run(None, torch.randn(2, tokens, 3))
    assert by_the_clock == [False, False]
