"""The editor's two tokenizers, built from the world's own vocabulary: real classes, nothing downloaded.

Every word of the world is one token. Other words fall apart into letters, so that any English text can be encoded.
"""

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer, T5TokenizerFast

from rc_grpo.pocket import MAX_SEQUENCE_LENGTH
from rc_grpo.pocket.world import vocabulary

_SPACE = "▁"
_CLIP_LENGTH = 77
"""FluxKontextPipeline pads CLIP's prompt to the tokenizer's own length; 77 is CLIP's."""


def t5_tokenizer() -> Any:
    """Return a `T5TokenizerFast` (unigram) in which each word of the world, in lower and upper case, is one token."""
    specials = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = {form for word in vocabulary() for form in (word, word.lower(), word.capitalize())}
    pieces = [(_SPACE + word, -5.0) for word in sorted(words)]
    letters = [(letter, -20.0) for letter in (_SPACE, *string.ascii_letters, *string.digits, *string.punctuation)]
    known = {piece for piece, _ in pieces}
    unigram = models.Unigram(specials + pieces + [pair for pair in letters if pair[0] not in known], unk_id=2)
    tokenizer = Tokenizer(unigram)
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return T5TokenizerFast(tokenizer_object=tokenizer, model_max_length=MAX_SEQUENCE_LENGTH, extra_ids=0)


def clip_tokenizer() -> Any:
    """Return a `CLIPTokenizer` (byte-level BPE) whose merges were learned on the words of the world.

    The trainer breaks ties at random: two builds differ in ids, so a trained editor keeps the tokenizer saved with it.
    """
    tokenizer = Tokenizer(
        models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1024, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    # Twice each: the trainer merges only what it saw more than once.
    tokenizer.train_from_iterator([word.lower() for word in vocabulary()] * 2, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = dict(model["vocab"])
    for token in (*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"):
        vocab.setdefault(token, len(vocab))
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=_CLIP_LENGTH)
