"""A whole editor: denoiser and codec in one object, which is what a rollout worker holds."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rc_grpo.config import EditorConfig
from rc_grpo.editor.denoiser import Denoiser, PolicyMaker
from rc_grpo.editor.family import Body, Codec
from rc_grpo.editor.weights.policy import AdapterPolicy
from rc_grpo.images import Pixels
from rc_grpo.messages import Conditions, EditTask


class Editor(Denoiser):
    """A `Denoiser` that can also encode and decode.

    Args:
        body: see `Denoiser`.
        codec: of the same model.
        editor: see `Denoiser`.
        seed: see `Denoiser`.
        policy: see `Denoiser`.
    """

    def __init__(
        self, body: Body, codec: Codec, editor: EditorConfig, seed: int, policy: PolicyMaker = AdapterPolicy
    ) -> None:
        super().__init__(body, editor, seed, policy)
        self.codec = codec

    def encode(self, task: EditTask) -> Conditions:
        """Encode a task's source images and instruction."""
        return self.codec.encode(task)

    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an RGB image ``[h, w, 3]`` uint8, an instruction, and further source images."""
        return self.codec.encode_image(source, instruction, *references)

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode latents ``[B, N, C]`` into images ``[B, H, W, 3]`` uint8."""
        return self.codec.decode(latents, conditions)
