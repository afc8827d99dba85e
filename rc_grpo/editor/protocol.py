"""What rollouts ask of an editor: `rc_grpo.editor.editor.Editor`, or a test's stand-in with these verbs."""

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from rc_grpo.editor.family import Codec
from rc_grpo.editor.recording import AttentionRecorder, Direction
from rc_grpo.messages import Conditions


class HeldVelocity(Protocol):
    """A `rc_grpo.algorithm.solver.Velocity` that can compute once what does not depend on the states."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Return the velocity at states ``[B, N, C]``, in their shape and dtype (float32)."""
        ...

    def held(self) -> AbstractContextManager[None]:
        """Compute that for all calls inside the context, without gradients, under the weights of its beginning."""
        ...


class FlowEditor(Codec, Protocol):
    """Everything a rollout needs."""

    device: torch.device
    layers: int
    """Joint-attention layers."""

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's latents."""
        ...

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the schedule ``[T+1]`` float64, 1 down to 0."""
        ...

    def velocity(self, conditions: Conditions, guidance: float | None = None) -> HeldVelocity:
        """Bind conditions on the device and return the velocity field of that task; none: the editor's guidance."""
        ...

    def recording(
        self,
        layers: tuple[int, ...],
        token_mask: Tensor,
        text_counted: Tensor,
        direction: Direction = "from_text",
    ) -> AbstractContextManager[AttentionRecorder]:
        """Record the attention concentration of every velocity call inside the context."""
        ...
