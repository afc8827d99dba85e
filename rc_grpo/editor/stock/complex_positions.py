"""Attention whose positions come as complex numbers.

They turn queries and keys so where diffusers' rounding is followed. Elsewhere they are cosines and sines, which the
fused kernel of norm and rotation reads and a compiler fuses.
"""

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from rc_grpo.editor.stock.attention import ProbedAttention


class TurnedAttention(ProbedAttention):
    """What attention processors with such positions share."""

    def rotary(self, *positions: Tensor) -> Any:
        """Return what `rotate` takes, of parts one after the other: positions ``[S_i, D / 2]`` complex64."""
        if self._fused or torch.compiler.is_compiling():
            turns = torch.cat([torch.view_as_real(part) for part in positions])
            return turns.repeat_interleave(2, dim=1).unbind(-1)
        return torch.cat(positions)

    def rotate(self, x: Tensor, rotary: Any) -> Tensor:
        """Turn queries or keys; a product of complex numbers rounds otherwise than its parts on a GPU."""
        if isinstance(rotary, Tensor):
            return apply_rotary_emb(x, rotary[None], use_real=False)  # type: ignore[no-any-return]
        return super().rotate(x, rotary)
