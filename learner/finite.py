"""No update with a NaN or an infinity in it leaves the learner: it is found by name, and all ranks end it together."""

from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor

from learner.errors import NonFiniteError
from rc_grpo.editor.finite import non_finite

_TEXT_BYTES = 512


def first_non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor that holds a NaN or an infinity; a device is waited for once."""
    return next(iter(non_finite(tensors)), None)


def require_finite(found: str | None, update: int, device: torch.device) -> None:
    """Go on if no rank has found anything; all ranks of the process group together.

    A rank that raised alone would leave the others waiting in their next collective until the deadline.

    Args:
        found: what is not finite on this rank, in words, or None.
        update: number of the update that is under way, 1-based.
        device: of the process group's backend.

    Raises:
        NonFiniteError: a rank has; with what the first of them found, on every rank.
    """
    if (said := _first_said(found, device)) is not None:
        raise NonFiniteError(
            f"update {update} is not finite: {said}. Nothing of it was published or saved. Made again it would be the "
            "same: start a run with a lower learner.learning_rate or learner.grad_norm, or look at that task's data"
        )


def _first_said(found: str | None, device: torch.device) -> str | None:
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    finder = torch.tensor(world if found is None else rank, device=device)
    torch.distributed.all_reduce(finder, torch.distributed.ReduceOp.MIN)
    if (source := int(finder)) == world:
        return None
    # Ranks exchange tensors alone: torch's collectives of objects would pickle them.
    said = (f"{found}, on learner-{rank}".encode() if rank == source else b"")[:_TEXT_BYTES]
    text = torch.tensor(list(said.ljust(_TEXT_BYTES)), dtype=torch.uint8, device=device)
    torch.distributed.broadcast(text, source)
    return bytes(text.tolist()).decode(errors="replace").rstrip()
