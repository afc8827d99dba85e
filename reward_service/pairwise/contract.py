"""What a pairwise judge is asked and what it answers: the source, two edits named A and B, and which of them wins.

That is what PVC-Judge (arXiv 2603.28547) was trained on: one JSON object with the winner, ``Image A``, ``Image B`` or
``Tie``.
"""

from typing import Any

from reward_service.contract import AnswerError, read_json, shown

Choice = int
"""1 where the edit that was shown first wins, -1 where the second does, 0 where neither."""

_CHOICES: dict[str, Choice] = {"Image A": 1, "Image B": -1, "Tie": 0}

ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"winner": {"type": "string", "enum": list(_CHOICES)}},
    "required": ["winner"],
    "additionalProperties": False,
}
"""What structured output holds the judge to; it is parsed as strictly without it."""


def parse_choice(text: str) -> Choice:
    """Read an answer: one JSON object whose ``winner`` is one of the three, letter for letter.

    Raises:
        AnswerError: says what is wrong.
    """
    content = read_json(text)
    winner = content.get("winner") if isinstance(content, dict) else None
    if not isinstance(winner, str) or winner not in _CHOICES:
        raise AnswerError(f"no object whose `winner` is one of {', '.join(_CHOICES)}: {shown(text)}")
    return _CHOICES[winner]
