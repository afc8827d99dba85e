"""Projections with a LoRA on each are the same together as one by one, and so are their gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rc_grpo.config import LoraSettings
from rc_grpo.editor import lora
from rc_grpo.editor.denoiser import Denoiser
from rc_grpo.editor.weights import together
from tests.conftest import TINY, tiny_denoiser


def attention_of(denoiser: Denoiser) -> tuple[Any, ...]:
    attn = denoiser.transformer.single_transformer_blocks[0].attn
    return attn.to_q, attn.to_k, attn.to_v


def moved() -> Denoiser:
    denoiser = tiny_denoiser()
    denoiser.policy.load({name: weight + 0.1 for name, weight in lora.copied(denoiser.policy.weights()).items()})
    return denoiser


def gradients(outputs: Sequence[Tensor], leaves: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(sum(output.square().sum() for output in outputs), leaves)


def test_outputs_and_gradients_are_those_of_one_projection_at_a_time() -> None:
    denoiser = moved()
    projections = attention_of(denoiser)
    x = torch.randn(2, 5, projections[0].in_features, requires_grad=True)
    leaves = [x, *(part[lora.ADAPTER].weight for own in projections for part in (own.lora_A, own.lora_B))]
    apart, joined = [project(x) for project in projections], together.project(x, projections)
    torch.testing.assert_close(joined, apart)
    torch.testing.assert_close(gradients(joined, leaves), gradients(apart, leaves), rtol=1e-4, atol=1e-4)


def test_they_are_taken_together_only_where_a_lora_acts_on_each() -> None:
    denoiser = moved()
    projections = attention_of(denoiser)
    assert together.adapted(projections)
    with denoiser.policy.disabled():
        assert not together.adapted(projections)
    assert not together.adapted((*projections, torch.nn.Linear(4, 4)))
    some = tiny_denoiser(TINY.model_copy(update={"lora": LoraSettings(rank=4, alpha=8, targets=("attn.to_q",))}))
    assert not together.adapted(attention_of(some))
