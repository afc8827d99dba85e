"""A NaN becomes no picture: weights, latents and what a VAE makes of them are numbers, or an error says which are not.

As 8-bit pixels a NaN is 0, and a black picture is scored like any other.
"""

from collections.abc import Mapping

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
def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors, all on one device, that hold a NaN or an infinity; it is waited for once."""
    if not tensors:
        return []
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).tolist()
    return [name for name, good in zip(tensors, finite, strict=True) if not good]


def non_finite_weights(model: nn.Module) -> list[str]:
    """Return the names of a model's weights that hold a NaN or an infinity.

    Formats of eight bits are passed over: most have no infinity, and PyTorch does not look for their NaNs.
    """
    return non_finite(
        {
            name: weight
            for name, weight in model.named_parameters()
            if weight.is_floating_point() and weight.element_size() > 1
        }
    )
