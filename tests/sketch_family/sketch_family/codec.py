"""Words and images of the toy: what `rc_grpo.editor.family.Codec` asks for."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import TextLength
from rc_grpo.editor.geometry import editing_size, resize_image
from rc_grpo.images import Pixels, decode_rgb
from rc_grpo.messages import Conditions, EditTask
from rc_grpo.seeds import derive, normal
from sketch_family.model import BLOCK, SOURCE_SHRUNK_BY, TEXT_WIDTH, TOKEN

TEMPLATE = ("<edit>",)
"""Words that the model expects around every instruction, and that are not counted as text."""


class SketchCodec:
    """A word is a random vector, a token 4 x 4 averages of pixels."""

    token = TOKEN

    def __init__(self, editor: EditorConfig) -> None:
        self._editor = editor

    def encode(self, task: EditTask) -> Conditions:
        """Encode a task."""
        return self.encode_image(decode_rgb(task.source), task.instruction, *map(decode_rgb, task.references))

    def encode_image(self, source: Pixels, instruction: str, *references: Pixels) -> Conditions:
        """Encode an image and an instruction.

        Raises:
            ValueError: the instruction has more words than there are slots, or there are references.
        """
        if references:
            raise ValueError("a sketch has one source image")
        slots = self._editor.text_tokens
        words = _words(instruction)
        if objection := count(instruction, self._editor).objection:
            raise ValueError(objection)
        # Twice a token, so that the shrunk source has whole ones too.
        multiple = SOURCE_SHRUNK_BY * TOKEN
        height, width = editing_size(*source.shape[:2], self._editor.resolution, multiple)
        small = height // SOURCE_SHRUNK_BY, width // SOURCE_SHRUNK_BY
        return Conditions(
            height=height,
            width=width,
            arrays={
                "prompt": _embedded(words, slots),
                "negative": _embedded(list(TEMPLATE), slots),
                "source": _tokens(resize_image(source, *small)),
                "kept": _tokens(resize_image(source, height, width)),
            },
            text_valid=(np.arange(slots) >= len(TEMPLATE)) & (np.arange(slots) < len(words)),
            sources=(small,),
        )

    def decode(self, latents: Tensor, conditions: Conditions) -> NDArray[np.uint8]:
        """Decode latents: every average becomes a block of pixels."""
        rows = conditions.height // TOKEN
        blocks = latents.float().cpu().unflatten(1, (rows, -1)).unflatten(-1, (3, TOKEN // BLOCK, TOKEN // BLOCK))
        image = blocks.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3, 4)
        image = functional.interpolate(image, scale_factor=BLOCK)
        return np.asarray(((image / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def count(instruction: str, editor: EditorConfig) -> TextLength:
    """Count the words of an instruction, the template's among them."""
    return TextLength(len(_words(instruction)), editor.text_tokens)


def _words(instruction: str) -> list[str]:
    return [*TEMPLATE, *instruction.lower().split()]


def _embedded(words: list[str], slots: int) -> NDArray[np.float32]:
    filled = [*words, *["<pad>"] * (slots - len(words))]
    return np.stack([normal(derive("word", word), TEXT_WIDTH).numpy() for word in filled])


def _tokens(image: Pixels) -> NDArray[np.float32]:
    """Return ``[N, C]`` of an RGB image: averages of its blocks in -1..1, token by token."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    averages = functional.avg_pool2d(pixels, BLOCK)
    per_token = TOKEN // BLOCK
    tokens = averages.unflatten(2, (-1, per_token)).unflatten(4, (-1, per_token)).permute(0, 2, 4, 1, 3, 5)
    return np.asarray(tokens.flatten(3).flatten(1, 2)[0].numpy())
