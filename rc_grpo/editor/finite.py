"""A NaN becomes no picture: weights, latents and what a VAE makes of them are numbers, or an error says which are not.

As 8-bit pixels a NaN is 0, and a black picture is scored like any other.
"""

import torch
from torch import Tensor, nn

_AGAIN = (
    "Made again it would be the same: look at the model's weights and editor.dtype, or go on from an earlier "
    "checkpoint with a lower learner.learning_rate"
)


class NonFiniteEditError(RuntimeError):
    """What an editor made holds a NaN or an infinity; nothing of it was scored."""


def require_finite(made: Tensor, what: str) -> None:
    """Go on if what an editor made of a group is finite; a device is waited for once.

    Args:
        made: ``[G, ...]``, of each candidate.
        what: it is, in words.

    Raises:
        NonFiniteEditError: some candidate's is not; says how many.
    """
    broken = int((~torch.isfinite(made).flatten(1).all(dim=1)).sum())
    if broken:
        raise NonFiniteEditError(f"{what}: {broken} of {len(made)} hold a NaN or an infinity. {_AGAIN}")


@torch.no_grad()
def non_finite_weights(model: nn.Module) -> list[str]:
    """Return the names of a model's weights that hold a NaN or an infinity; a device is waited for once."""
    # Formats of eight bits have neither, or no operation that finds them.
    named = [(name, weight) for name, weight in model.named_parameters() if weight.is_floating_point()]
    named = [(name, weight) for name, weight in named if weight.element_size() > 1 and weight.numel()]
    if not named:
        return []
    ends = torch.stack([torch.stack(torch.aminmax(weight)).float() for _, weight in named])
    return [name for (name, _), good in zip(named, torch.isfinite(ends).all(dim=1).tolist(), strict=True) if not good]
