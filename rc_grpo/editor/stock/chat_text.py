"""Instructions inside a chat template: how long they are to a language model, and which tokens are their own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, Qwen2Tokenizer

from rc_grpo.config import EditorConfig
from rc_grpo.editor.files import model_source, naming_the_model

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def byte_level_tokenizer(merges: Sequence[tuple[str, str]] = (), special: Sequence[str] = SPECIAL) -> Any:
    """Return a tokenizer of the class that Qwen's have.

    Args:
        merges: of pieces into tokens, the first one first; without any it has a token a byte: random weights want no
            words.
        special: what is one token and no word; the first ends a text and pads it.
    """
    tokens = (*sorted(ByteLevel.alphabet()), *map("".join, merges), *special)
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(dict.fromkeys(tokens))},
        merges=list(merges),
        additional_special_tokens=list(special[1:]),
        unk_token=special[0],
        eos_token=special[0],
        pad_token=special[0],
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Return the numbers of the tokens that stand for images, as the encoder's configuration names them."""
    names = {"image_token": "image_pad", "video_token": "video_pad"}
    names |= {f"vision_{end}_token": f"vision_{end}" for end in ("start", "end")}
    return {f"{name}_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in names.items()}


def load_tokenizer(editor: EditorConfig, *, random: bool, folder: str = "tokenizer") -> Any:
    """Load the tokenizer of a model, or of an architecture with random weights.

    Args:
        editor: which model.
        random: its weights are random ones.
        folder: of the model's, in which the tokenizer is.

    Raises:
        rc_grpo.editor.files.ModelNotFoundError: it is not there.
    """
    if random:
        return byte_level_tokenizer()
    with naming_the_model(editor):
        source, revision = model_source(editor), editor.revision
        return AutoTokenizer.from_pretrained(source, subfolder=folder, revision=revision)


def count(tokenizer: Any, text: str) -> int:
    """Return the number of a text's tokens, uncut."""
    return len(tokenizer(text, truncation=False, padding=False)["input_ids"])


def own_tokens(tokenizer: Any, before: str, instruction: str, after: str, slots: int) -> NDArray[np.bool_]:
    """Return ``[slots]`` bool, True at the instruction's own tokens: not at the template's, nor at padding.

    Args:
        tokenizer: a fast one; it pads to ``slots`` on its own side.
        before: the template ahead of the instruction.
        instruction: which fits, see `count`.
        after: the template behind it.
        slots: there are.
    """
    text, options = before + instruction + after, {"padding": "max_length", "truncation": True}
    encoded = tokenizer(text, max_length=slots, return_offsets_mapping=True, **options)
    first, last = np.asarray(encoded["offset_mapping"]).T
    begin, end = len(before), len(before) + len(instruction)
    return np.asarray((first < end) & (last > begin) & (last > first))
