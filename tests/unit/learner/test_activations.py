"""How blocks are run: within hooks that fetch what they are made of, and compiled so that the next process need not."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._functorch._aot_autograd import autograd_cache

from learner import activations
from rc_grpo.config import ObjectiveConfig
from rc_grpo.config.learner import Activations
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.messages import Conditions
from tests.unit.learner.test_update import gradients, make_group, work_for


class Fetched:
    """Does as ZeRO 3: makes a block's weights anything while the block does not run, and counts its passes."""

    def __init__(self, block: nn.Module) -> None:
        self.passes = 0
        self._weights = {weight: weight.detach().clone() for weight in block.parameters()}
        block.register_forward_pre_hook(self._fetch, with_kwargs=True)
        block.register_full_backward_pre_hook(self._fetch)
        block.register_forward_hook(self._let_go)
        self._let_go()

    def _fetch(self, *_: Any) -> None:
        self.passes += 1
        for weight, value in self._weights.items():
            weight.data.copy_(value)

    def _let_go(self, *_: Any) -> None:
        for weight in self._weights:
            weight.data.fill_(torch.nan)


@pytest.mark.parametrize("kept", ["store", "selective", "recompute"])
def test_a_block_is_run_and_run_again_between_the_hooks_that_fetch_it(
    policy: Denoiser, conditions: Conditions, kept: Activations
) -> None:
    group = make_group(policy, conditions)
    expected, _ = gradients(policy, group, conditions, ObjectiveConfig(), work_for())
    activations.arrange(policy.body, kept, compiled=False, sharded=True)
    fetched = [Fetched(block) for block in policy.body.blocks]
    again = make_group(policy, conditions)
    assert torch.equal(torch.tensor(again.states), torch.tensor(group.states))
    without = [one.passes for one in fetched]
    assert min(without) > 0
    got, _ = gradients(policy, group, conditions, ObjectiveConfig(), work_for())
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-8)
    assert all(one.passes > before for one, before in zip(fetched, without, strict=True))


@pytest.mark.parametrize("kept", ["store", "selective", "recompute"])
def test_whatever_a_learner_compiles_pytorch_keeps_for_the_next_process(
    policy: Denoiser, conditions: Conditions, kept: Activations, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def look(graph: torch.fx.GraphModule, _inputs: Any, **_options: Any) -> Callable[..., Any]:
        # PyTorch's own checks, which bypass its cache where they raise.
        autograd_cache.check_cacheable(graph)
        autograd_cache._collect_context_fn_hashes(graph)
        traced.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=look))
    torch._dynamo.reset()
    activations.arrange(policy.body, kept, compiled=True)
    group = make_group(policy, conditions)
    gradients(policy, group, conditions, ObjectiveConfig(), work_for())
    assert len(traced) >= 4  # two kinds of blocks, with gradients and without
    torch._dynamo.reset()
