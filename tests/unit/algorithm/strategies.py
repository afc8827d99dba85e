"""Random problems of every small shape, drawn by hypothesis and filled from a seed."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from rc_grpo.algorithm.metric import region_weights

seeds = st.integers(min_value=0, max_value=2**31)


def randn(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def same_bits(x: Tensor, y: Tensor) -> bool:
    """Tell whether two tensors agree bit for bit: unlike ``==``, 0.0 and -0.0 differ and NaN equals itself."""
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[x.dtype]
    return x.dtype == y.dtype and torch.equal(x.contiguous().view(integers), y.contiguous().view(integers))


def relative_error(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm().clamp(min=1e-300))


masks = st.lists(st.booleans(), min_size=2, max_size=10).filter(any).map(torch.tensor)
"""Token masks [N] with something to edit; full ones included."""


@dataclass(frozen=True)
class Group:
    """A group at one step, float64: candidates around a centre, as RDP makes them, and an anchor near candidate 1."""

    mask: Tensor
    candidates: Tensor
    anchor: Tensor
    weights: Tensor
    advantages: Tensor

    @property
    def policy(self) -> Tensor:
        """The old policy, spelled out."""
        distances = torch.stack([((x - self.anchor) ** 2 * self.weights).sum() for x in self.candidates])
        return torch.softmax(-distances / 2, dim=0)


@st.composite
def groups(draw: st.DrawFn) -> Group:
    mask = draw(masks)
    tokens, channels, size, seed = len(mask), draw(st.integers(1, 4)), draw(st.integers(2, 8)), draw(seeds)
    spread = draw(st.sampled_from([0.01, 0.3, 3.0]))
    candidates = randn(seed, 1, tokens, channels) + spread * randn(seed + 1, size, tokens, channels)
    advantages = randn(seed + 2, size)
    return Group(
        mask=mask,
        candidates=candidates,
        anchor=candidates[1] + 0.1 * spread * randn(seed + 3, tokens, channels),
        weights=region_weights(mask, channels, dtype=torch.float64),
        advantages=advantages - advantages.mean(),
    )


class Flow(nn.Module):
    """A small nonlinear velocity field with every coupling that matters: across channels, across tokens, with sigma."""

    def __init__(self, tokens: int, channels: int, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.lift = nn.Parameter(0.5 * randn(seed, channels + 1, 8, dtype=dtype))
        self.drop = nn.Parameter(0.5 * randn(seed + 1, 8, channels, dtype=dtype))
        self.mix = nn.Parameter(0.5 * randn(seed + 2, tokens, tokens, dtype=dtype))

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        level = torch.full((*x.shape[:-1], 1), sigma, dtype=x.dtype)
        hidden = torch.tanh(torch.cat([x, level], dim=-1) @ self.lift)
        return self.mix @ (hidden @ self.drop)

    def gradients(self) -> Tensor:
        """Every parameter's gradient, in one vector."""
        return torch.cat([parameter.grad.flatten() for parameter in self.parameters()])
