"""What the system asks of an editor. FLUX.1 Kontext ships; anything else with these verbs can take its place."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.editor.attention import AttentionRecorder
from rc_grpo.messages import Conditions, EditTask, PolicyVersion, VersionProof

Velocity = Callable[[Tensor, float], Tensor]
"""``v(x, sigma)``: latents ``[B, N, C]`` float32 and a noise level to the velocity ``[B, N, C]`` float32."""


class Denoiser(Protocol):
    """The policy: a velocity field with trainable LoRA weights. All that the learner needs of an editor."""

    device: torch.device

    def latent_shape(self, conditions: Conditions) -> tuple[int, int]:
        """Return ``(N, C)`` of the target's packed latents."""
        ...

    def sigmas(self, steps: int, conditions: Conditions) -> Tensor:
        """Return the schedule ``[T+1]`` float64, 1 down to 0."""
        ...

    def velocity(self, conditions: Conditions) -> Velocity:
        """Bind conditions on the device and return the velocity field of that task."""
        ...

    def adopt(self, version: PolicyVersion, weights: NDArray[np.uint8], *, worker: str) -> VersionProof:
        """Replace the LoRA weights by a version, prove it, or raise `rc_grpo.messages.VersionMismatchError`."""
        ...

    def recording(
        self, layers: tuple[int, ...], token_mask: Tensor, text_counted: Tensor
    ) -> AbstractContextManager[AttentionRecorder]:
        """Record the attention concentration of every velocity call inside the context."""
        ...


class Codec(Protocol):
    """Images and words to conditions, latents to images. Runs once a task, and only where images are made."""

    token: int

    def encode(self, task: EditTask) -> Conditions:
        """Encode source image and instruction."""
        ...

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        ...


class FlowEditor(Denoiser, Codec, Protocol):
    """Everything a rollout needs."""
