"""EditScore's contract: what is asked of a vision-language judge, what counts as an answer, how answers make a reward.

Two questions a pass (arXiv 2509.23909). Semantic consistency (SC) shows source and edited image: was the edit made, and
only that. Perceptual quality (PQ) shows the edited image alone: does it look natural, is it free of artifacts. Each is
answered by one JSON object, the reasoning first, then two integers from 0 to 25.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rc_grpo.storable import storable
from reward_service.judge import ARTIFACTS, FULL_MARKS, NATURALNESS, OVER_EDITING, SUCCESS

Question = Literal["sc", "pq"]
QUESTIONS: tuple[Question, ...] = ("sc", "pq")

SUBSCORES: dict[Question, tuple[str, str]] = {"sc": (SUCCESS, OVER_EDITING), "pq": (NATURALNESS, ARTIFACTS)}
"""What the two numbers of an answer stand for, in their order."""

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reasoning": {"type": "string"},
        "score": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": int(FULL_MARKS)},
            "minItems": 2,
            "maxItems": 2,
        },
    },
    "required": ["reasoning", "score"],
    "additionalProperties": False,
}
"""What structured output holds the judge to; it is parsed as strictly without it."""


def answer_schema(reasoning_characters: int | None) -> dict[str, Any]:
    """Return `ANSWER_SCHEMA`, its reasoning bounded to so many characters, if any."""
    if reasoning_characters is None:
        return ANSWER_SCHEMA
    bounded = {"reasoning": {"type": "string", "maxLength": reasoning_characters}}
    return ANSWER_SCHEMA | {"properties": ANSWER_SCHEMA["properties"] | bounded}


REASONING_CHARACTERS = 4000
"""Of a judge's reasoning that are kept, for each question; `sampling.max_tokens` allows half of it by default."""


class AnswerError(ValueError):
    """A judge's text is not an answer; the message says why."""


@dataclass(frozen=True)
class Answer:
    """One judge's answer to one question.

    Attributes:
        score: two numbers, 0..25.
        reasoning: in the judge's words, as `storable` text of at most `REASONING_CHARACTERS`.
    """

    score: tuple[float, float]
    reasoning: str


def read_json(text: str) -> Any:
    """Read an answer as JSON.

    Raises:
        AnswerError: it is none.
    """
    try:
        return json.loads(text)
    # A number of thousands of digits is a ValueError without `msg`, and brackets by the thousand are a RecursionError.
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"not JSON ({getattr(error, 'msg', error)}): {shown(text)}") from error


def parse_answer(text: str) -> Answer:
    """Read an answer: one JSON object whose ``score`` is exactly two finite numbers from 0 to 25.

    Nothing else is an answer: no digits picked out of prose, no repaired JSON, no clamped number.

    Raises:
        AnswerError: says what is wrong.
    """
    content = read_json(text)
    if not isinstance(content, dict) or not isinstance(content.get("score"), list):
        raise AnswerError(f"no object with a list `score`: {shown(text)}")
    score = content["score"]
    if len(score) != 2 or not all(_is_mark(value) for value in score):
        raise AnswerError(f"score is not two numbers in 0..{FULL_MARKS:g}: {shown(_text(score))}")
    reasoning = storable(_text(content.get("reasoning", "")), REASONING_CHARACTERS)
    return Answer((float(score[0]), float(score[1])), reasoning)


def overall(sc: Sequence[float], pq: Sequence[float]) -> float:
    """Return EditScore's overall score of one pass, 0..10: the weaker of each pair, then their geometric mean.

    ``overall([24, 22], [23, 25]) == 8.997777503361593``, the published scorer's value.

    Args:
        sc: success of the edit and absence of over-editing, 0..25.
        pq: naturalness and absence of artifacts, 0..25.
    """
    return math.sqrt((min(sc) / 2.5) * (min(pq) / 2.5))


def _is_mark(value: object) -> bool:
    # bool is an int to Python, and json reads NaN and Infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= FULL_MARKS


def _text(value: object) -> str:
    try:
        return str(value)
    except RecursionError:
        return "(nested too deeply)"


def shown(text: str, limit: int = 120) -> str:
    """Return a text as an error quotes it, cut."""
    return repr(text if len(text) <= limit else text[:limit] + "...")
