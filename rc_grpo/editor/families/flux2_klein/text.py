"""How long an instruction is to FLUX.2 klein: Qwen3 reads it inside its chat template, in slots."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rc_grpo.config import EditorConfig
from rc_grpo.editor.families.flux2_klein import full_size
from rc_grpo.editor.family import TextCounter, TextLength
from rc_grpo.editor.stock.chat_text import count, load_tokenizer, own_tokens

_SENTINEL = "\ue000"
"""A character that no template has."""


class KleinText:
    """Counts an instruction's tokens, and tells its own from the template's.

    Args:
        tokenizer: Qwen's, with its chat template.
        slots: ``editor.text_tokens``.
    """

    def __init__(self, tokenizer: Any, slots: int) -> None:
        self._tokenizer, self._slots = tokenizer, slots
        # As `Flux2KleinPipeline._get_qwen3_prompt_embeds` renders it.
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        self._before, self._after = rendered.split(_SENTINEL)

    def length(self, instruction: str) -> TextLength:
        """Count an instruction, the template included."""
        return TextLength(count(self._tokenizer, self._before + instruction + self._after), self._slots)

    def own(self, instruction: str) -> NDArray[np.bool_]:
        """Return ``[slots]`` bool, True at the instruction's own tokens.

        Raises:
            ValueError: the instruction does not fit the slots; cutting it would change what is asked for.
        """
        self.length(instruction).require(instruction)
        return own_tokens(self._tokenizer, self._before, instruction, self._after, self._slots)


def counter(editor: EditorConfig) -> TextCounter:
    """Load the tokenizer of a model, and count by it."""
    tokenizer = load_tokenizer(editor, random=full_size.named(editor) is not None)
    return KleinText(tokenizer, editor.text_tokens).length
