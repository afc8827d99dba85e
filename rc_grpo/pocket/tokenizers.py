"""The first editor's two tokenizers, built from the world's own vocabulary: real classes, nothing downloaded.

Every word of the world is one token. Other words fall apart into letters, so that any English text can be encoded.
"""

import json
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTokenizer, T5TokenizerFast

from rc_grpo.pocket import MAX_SEQUENCE_LENGTH
from rc_grpo.pocket.grammar import vocabulary

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

    The same ids at every build.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = learn_merges([*word[:-1], word[-1] + "</w>"] for word in vocabulary())
    known = (*alphabet, *(letter + "</w>" for letter in alphabet), *map("".join, pairs))
    vocab = {token: index for index, token in enumerate(dict.fromkeys((*known, "<|startoftext|>", "<|endoftext|>")))}
    merges = [" ".join(pair) for pair in pairs]
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=_CLIP_LENGTH)


def learn_merges(words: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Return byte-pair merges after which each of the words is one token, the most frequent pair first.

    The library's own trainer breaks ties by the order of a hash table; here it is the alphabet, on every machine.
    """
    pieces = [list(word) for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]
    return merges


def _merged(word: Sequence[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for piece in word:
        # Left to right and never overlapping, as the tokenizer replays it.
        if result and (result[-1], piece) == pair:
            result[-1] = "".join(pair)
        else:
            result.append(piece)
    return result
