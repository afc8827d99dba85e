"""A projection and its LoRA end in one tensor, whose gradients are those of their sum."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from rc_grpo.editor.fast.adapted_linear import adapted_linear

BATCH, TOKENS, IN, OUT, RANK = 2, 5, 6, 7, 3


def given(*, bias: bool, learns: bool = False) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    torch.manual_seed(0)
    x, wide, factor = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((BATCH, TOKENS, IN), (BATCH, TOKENS, 3 * RANK), (OUT, RANK))
    )
    weight = torch.randn(OUT, IN, dtype=torch.float64, requires_grad=learns)
    inner = wide[..., RANK : 2 * RANK]  # As three projections' inner products lie side by side.
    return x, weight, torch.randn(OUT, dtype=torch.float64) if bias else None, inner, factor


@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_sum_and_its_gradients_are_finite_differences(bias: bool) -> None:
    x, weight, offset, inner, factor = given(bias=bias)
    expected = linear(x, weight, offset) + linear(inner, factor)
    torch.testing.assert_close(adapted_linear(x, weight, offset, inner, factor), expected)
    assert torch.autograd.gradcheck(lambda x, inner, f: adapted_linear(x, weight, offset, inner, f), (x, inner, factor))


def test_pytorch_may_trace_it() -> None:
    torch.library.opcheck(adapted_linear, given(bias=True))


def test_a_projection_that_learns_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="they are frozen"):
        adapted_linear(*given(bias=True, learns=True))
