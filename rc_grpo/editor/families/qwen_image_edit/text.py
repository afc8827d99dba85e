"""Which tokens of a prompt are the instruction's own: neither its template's nor those that stand for the source."""

from typing import Any

import numpy as np
from diffusers import QwenImageEditPlusPipeline
from numpy.typing import NDArray

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.qwen_image_edit import full_size
from rc_grpo.editor.family import TextCounter, TextLength
from rc_grpo.editor.stock.chat_text import count, load_tokenizer, own_tokens

TEMPLATE = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where "
    "appropriate.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""The stock pipeline's ``prompt_template_encode``; a pipeline that has another is refused."""

DROPPED = 64
"""Of the template's first tokens, which the transformer never gets."""

PICTURE = "Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
IMAGE = "<|image_pad|>"


class QwenText:
    """Counts an instruction's tokens, and tells its own from the others.

    Args:
        tokenizer: Qwen2.5-VL's.
        slots: ``editor.text_tokens``.
    """

    def __init__(self, tokenizer: Any, slots: int) -> None:
        self._tokenizer, self._slots = tokenizer, slots
        before, self._after = TEMPLATE.split("{}")
        self._before = before + PICTURE

    def length(self, instruction: str) -> TextLength:
        """Count what the transformer gets of an instruction, what stands for the sources apart."""
        tokens = count(self._tokenizer, self._before + instruction + self._after)
        return TextLength(tokens - DROPPED, self._slots)

    def own(self, instruction: str, tokens: int) -> NDArray[np.bool_]:
        """Return ``[tokens]`` bool, True at the instruction's own.

        Args:
            instruction: which fits.
            tokens: that the transformer gets, the sources' among them; these come ahead of the instruction.
        """
        text = self._before + instruction + self._after
        length = count(self._tokenizer, text)
        valid = own_tokens(self._tokenizer, self._before, instruction, self._after, length)
        at = self._tokenizer(text)["input_ids"].index(self._tokenizer.convert_tokens_to_ids(IMAGE))
        behind = valid[at + 1 :]
        return np.asarray(np.concatenate([np.zeros(tokens - len(behind), dtype=np.bool_), behind]))


def counter(editor: EditorConfig) -> TextCounter:
    """Load the tokenizer of a model, and count by it."""
    tokenizer = load_tokenizer(editor, random=full_size.named(editor) is not None)
    return QwenText(tokenizer, editor.text_tokens).length


def check_template(pipeline: QwenImageEditPlusPipeline) -> None:
    """Check that a pipeline puts instructions into the template that is counted on.

    Raises:
        ValueError: it has another.
    """
    if (pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx) != (TEMPLATE, DROPPED):
        raise ValueError(
            "this pipeline puts instructions into another template than Qwen-Image-Edit-2511's, so that their own "
            "tokens cannot be told from it"
        )
