"""Attention that trains has the gradient of attention, whoever computes which of its passes."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention

from rc_grpo.editor.fast.flash_attention import attention, takes


@pytest.mark.parametrize("queries", [9, 5])
def test_its_output_and_its_gradients_are_pytorchs(queries: int) -> None:
    torch.manual_seed(0)
    leaves = [torch.randn(2, length, 3, 16, requires_grad=True) for length in (queries, 9, 9)]
    pull = torch.randn(2, queries, 3, 16)
    plain = scaled_dot_product_attention(*(leaf.transpose(1, 2) for leaf in leaves)).transpose(1, 2)
    mixed, summed = attention(*leaves)
    torch.testing.assert_close(mixed, plain)
    assert summed.shape == (2, 3, queries)
    expected = torch.autograd.grad(plain, leaves, pull)
    torch.testing.assert_close(torch.autograd.grad(mixed, leaves, pull), expected)


def test_a_row_s_logarithm_is_natural_and_of_scaled_scores() -> None:
    query, key, value = (torch.randn(1, 4, 2, 16) for _ in range(3))
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / 4
    torch.testing.assert_close(attention(query, key, value)[1], scores.exp().sum(dim=-1).log())


@pytest.mark.parametrize(
    ("keys", "width", "dtype", "device", "wanted"),
    [
        (2, 128, torch.bfloat16, "cuda", True),
        (1, 128, torch.bfloat16, "cuda", False),
        (2, 256, torch.bfloat16, "cuda", False),
        (2, 128, torch.float32, "cuda", False),
        (2, 128, torch.bfloat16, "cpu", False),
    ],
)
def test_what_a_kernel_cannot_take_is_left_to_pytorch(
    keys: int, width: int, dtype: torch.dtype, device: str, wanted: bool
) -> None:
    with FakeTensorMode():
        query, key = (torch.empty(1, length, 2, width, dtype=dtype, device=device) for length in (5, keys))
        assert takes(query, key) is wanted
