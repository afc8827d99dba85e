"""What the judge is taught to answer: a short phrase in words, then two whole marks.

The phrase always has the same number of tokens, so that the marks stand at the same place in every answer.
"""

from collections.abc import Iterator
from itertools import product

from torch import Tensor

from reward_service.contract import Question
from reward_service.judge import FULL_MARKS

GRADES: dict[Question, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sc": (("missing", "faint", "partial", "strong", "complete"), ("ruined", "altered", "shifted", "similar", "kept")),
    "pq": (("flat", "dull", "plausible", "natural", "perfect"), ("broken", "noisy", "rough", "fair", "clean")),
}
"""Words for a fifth of the scale each, worst first, for the two marks of a question."""

_PHRASES: dict[Question, str] = {"sc": "edit {0}, rest {1}", "pq": "contrast {0}, texture {1}"}


def grades(marks: Tensor) -> Tensor:
    """Return which fifth of the scale each mark is in: int64 0..4, shape kept."""
    return (5 * marks / FULL_MARKS).long().clamp(max=4)


def answer(question: Question, words: tuple[int, int], marks: tuple[int, int]) -> str:
    """Return an answer from the indices of its two words and its two marks.

    It is compact, without a blank after ``,`` and ``:``, as vLLM's structured output without white space writes it.
    """
    named = [names[index] for names, index in zip(GRADES[question], words, strict=True)]
    phrase = _PHRASES[question].format(*named)
    return f'{{"reasoning":"{phrase}","score":[{marks[0]},{marks[1]}]}}'


def phrases() -> Iterator[str]:
    """Yield every phrase of both questions."""
    for question, names in GRADES.items():
        yield from (_PHRASES[question].format(*words) for words in product(*names))
