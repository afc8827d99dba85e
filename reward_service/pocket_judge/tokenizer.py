"""The judge's tokenizer: Qwen's class and rules over a vocabulary of the world's own words.

Every word of an instruction, a prompt or an answer is one token, and so is every mark from 0 to 25: digit by digit, a
mark would be decided by its first digit alone. Any other text falls apart into bytes, as in every byte-level tokenizer.
"""

from collections.abc import Iterator
from typing import Any

from tokenizers import AddedToken, pre_tokenizers
from transformers import Qwen2Tokenizer

from rc_grpo.pocket import grammar
from rc_grpo.pocket.tokenizers import learn_merges
from reward_service.judge import FULL_MARKS
from reward_service.pocket_judge.answers import phrases
from reward_service.prompts import Prompts

IMAGE_PAD, VIDEO_PAD, VISION_START, VISION_END = "<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"
END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
SPECIAL = (END_OF_TEXT, "<|im_start|>", END_OF_TURN, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD)

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['content'] is string -%}{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ('image', 'image_url') -%}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part['type'] == 'video' -%}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else -%}{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""Qwen2.5-VL's turns, but without its default system message: the questions bring their own."""

MAX_LENGTH = 1024
"""Tokens of prompt and answer; a question has about 200."""


def build_tokenizer(prompts: Prompts) -> Any:
    """Return the `Qwen2Tokenizer` of the pocket world and these prompts; the same ids at every build."""
    vocabulary = {token: index for index, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    splitter = Qwen2Tokenizer(vocab=dict(vocabulary), merges=[]).backend_tokenizer.pre_tokenizer
    merges = learn_merges(sorted({piece for text in texts(prompts) for piece, _ in splitter.pre_tokenize_str(text)}))
    for pair in merges:
        vocabulary.setdefault("".join(pair), len(vocabulary))
    tokenizer = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=merges,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(str(mark), normalized=False) for mark in range(10, int(FULL_MARKS) + 1)])
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def texts(prompts: Prompts) -> Iterator[str]:
    """Yield every text between special tokens: turns' heads, prompts, instructions, answers."""
    for prompt in (prompts.sc, prompts.pq):
        yield f"system\n{prompt.system}"
        yield from (prompt.filled(instruction) for instruction in instructions())
    yield from ("user\n<img1>: ", "<img2>: ", "assistant\n", "\n")
    yield from (f'{{"reasoning":"{phrase}","score":[0,0]}}' for phrase in phrases())


def instructions() -> Iterator[str]:
    """Yield texts of the world that together hold each of its words, with a capital and without where it has both."""
    yield from grammar.phrases()
    yield " ".join(grammar.vocabulary())
