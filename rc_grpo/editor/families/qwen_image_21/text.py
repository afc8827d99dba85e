"""Which tokens of a prompt are the instruction's own, and which stand for the source."""

from typing import Any

import numpy as np
from diffusers import QwenImage21Pipeline
from numpy.typing import NDArray

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_21 import full_size
from rc_grpo.editor.family import TextCounter, TextLength
from rc_grpo.editor.stock.chat_text import count, load_tokenizer, own_tokens

SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
"""The system message, whose tokens the transformer never gets."""

IMAGE = "<|image_pad|>"
TEMPLATE = (
    f"{SYSTEM}<|im_start|>user\n<image1><|vision_start|>{IMAGE}<|vision_end|>{{}}<|im_end|>\n<|im_start|>assistant\n"
)
"""The stock pipeline's ``prompt_template_ti2i``; a pipeline that has another is refused."""


class Qwen21Text:
    """Counts an instruction's tokens, and tells its own from the others.

    Args:
        tokenizer: Qwen3-VL's.
        slots: ``editor.text_tokens``.
    """

    def __init__(self, tokenizer: Any, slots: int) -> None:
        self._tokenizer, self._slots = tokenizer, slots
        self._before, self._after = TEMPLATE.split("{}")
        self.dropped = count(tokenizer, SYSTEM)
        """Tokens of the system message."""

    def length(self, instruction: str) -> TextLength:
        """Count what the transformer gets of an instruction, what stands for the sources apart."""
        tokens = count(self._tokenizer, self._before + instruction + self._after)
        return TextLength(tokens - self.dropped - 1, self._slots)

    def own(self, instruction: str) -> NDArray[np.bool_]:
        """Return ``[L]`` bool of the tokens behind the last source, True at the instruction's own.

        Args:
            instruction: which fits.
        """
        text = self._before + instruction + self._after
        valid = own_tokens(self._tokenizer, self._before, instruction, self._after, count(self._tokenizer, text))
        at = self._tokenizer(text)["input_ids"].index(self._tokenizer.convert_tokens_to_ids(IMAGE))
        return np.asarray(valid[at + 1 :])


def counter(editor: EditorConfig) -> TextCounter:
    """Load the tokenizer of a model, and count by it."""
    tokenizer = load_tokenizer(editor, random=full_size.named(editor) is not None, folder="processor")
    return Qwen21Text(tokenizer, editor.text_tokens).length


def text_of(pipeline: QwenImage21Pipeline, slots: int) -> Qwen21Text:
    """Return what counts by a pipeline's tokenizer.

    Args:
        pipeline: whose template is checked.
        slots: ``editor.text_tokens``.

    Raises:
        ValueError: it puts instructions into another template than is counted on.
    """
    text = Qwen21Text(pipeline.processor.tokenizer, slots)
    if (pipeline.prompt_template_ti2i, pipeline._drop_idx) != (TEMPLATE, text.dropped):
        raise ValueError(
            "this pipeline puts instructions into another template than Qwen-Image-2.1's, so that their own tokens "
            "cannot be told from it"
        )
    return text
