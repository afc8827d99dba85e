"""How long an instruction is to FLUX.1 Kontext: T5 reads it in slots, CLIP pools the first of its tokens."""

from typing import Any

from transformers import CLIPTokenizer, T5TokenizerFast

from rc_grpo.config import EditorConfig
from rc_grpo.editor.family import TextLength
from rc_grpo.editor.files import FULL_SIZE, POCKET, model_source, naming_the_model


class KontextTextCounter:
    """Counts tokens.

    Args:
        tokenizer: CLIP's.
        tokenizer_2: T5's.
        slots: ``editor.text_tokens``.
    """

    def __init__(self, tokenizer: Any, tokenizer_2: Any, slots: int) -> None:
        self._clip, self._t5, self._slots = tokenizer, tokenizer_2, slots

    def __call__(self, instruction: str) -> TextLength:
        """Count an instruction."""
        pooled, read = _count(self._clip, instruction), int(self._clip.model_max_length)
        cut = f"CLIP's pooled prompt is of the first {read} of {pooled} tokens" if pooled > read else None
        return TextLength(_count(self._t5, instruction), self._slots, cut)


def counter(editor: EditorConfig) -> KontextTextCounter:
    """Load the two tokenizers of a model; at full size they are the pocket editor's."""
    named = editor.model_copy(update={"model": POCKET, "revision": None}) if editor.model == FULL_SIZE else editor
    source = model_source(named)
    with naming_the_model(named):
        clip = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer", revision=named.revision)
        t5 = T5TokenizerFast.from_pretrained(source, subfolder="tokenizer_2", revision=named.revision)
    return KontextTextCounter(clip, t5, editor.text_tokens)


def _count(tokenizer: Any, text: str) -> int:
    # Beneath what transformers wraps around it, which takes ten times as long; it sets both anew when it is called.
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return len(backend.encode(text).ids)
