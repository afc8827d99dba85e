import torch
from hypothesis import given
from hypothesis import strategies as st

from rc_grpo.algorithm.norm_guard import excess, norm_ratios

MASK = torch.tensor([True, False, False, True, False])


def randn(seed: int) -> torch.Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(inside=st.floats(0.1, 3), outside=st.floats(0.1, 3))
def test_a_field_that_is_scaled_by_region_has_those_ratios_and_only_inflation_costs(
    inside: float, outside: float
) -> None:
    base = randn(0)
    scales = torch.tensor([[inside if masked else outside] for masked in MASK.tolist()], dtype=torch.float64)
    ratios = norm_ratios(base * scales, base, MASK)
    torch.testing.assert_close(ratios, torch.tensor([inside, outside], dtype=torch.float64).expand(3, 2))
    expected = (max(0.0, inside - 1) ** 2 + max(0.0, outside - 1) ** 2) / 2
    torch.testing.assert_close(excess(ratios), torch.full((3,), expected, dtype=torch.float64))


def test_the_penaltys_gradient_shrinks_the_inflated_region_alone() -> None:
    base = randn(1)
    velocity = (base * torch.where(MASK, 1.2, 0.9)[:, None]).requires_grad_()
    (gradient,) = torch.autograd.grad(excess(norm_ratios(velocity, base, MASK)).sum(), velocity)
    assert not gradient[:, ~MASK].any()
    assert float((gradient[:, MASK] * velocity.detach()[:, MASK]).sum()) > 0


def test_a_region_of_no_size_is_no_inflation_and_no_nan() -> None:
    velocity = randn(2).requires_grad_()
    ratios = norm_ratios(velocity, randn(3), torch.ones(5, dtype=torch.bool))
    assert bool((ratios[:, 1] == 1).all())
    (gradient,) = torch.autograd.grad(excess(ratios).sum(), velocity)
    assert bool(gradient.isfinite().all())
