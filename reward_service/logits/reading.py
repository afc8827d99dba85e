"""A mark from the chances of a first token: the expectation over the ten digits, if the token is a digit at all.

Why ten levels: a number of two figures is two tokens in most vocabularies, whose first alone would call 24 a 2. A digit
is one token in all of them.
"""

import math
from collections.abc import Sequence
from typing import Any

from rc_grpo.storable import one_line
from reward_service.asking.openai_answers import Chance
from reward_service.contract import AnswerError
from reward_service.judge import FULL_MARKS

DIGITS = "0123456789"
HIGHEST = len(DIGITS) - 1

DIGIT_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": HIGHEST}
"""What holds a server to one digit, where it is to be held."""

_SHOWN_CHARACTERS = 40
_ROUNDING = 1e-2


def expected_mark(chances: Sequence[Chance], least_mass: float) -> float:
    """Return the mark, 0..25, that the digits among the likeliest first tokens amount to.

    A digit that is not among them has less probability than each that is; what all of them lack to 1 bounds the error.

    Args:
        chances: of the likeliest tokens.
        least_mass: what the digits must hold of all probability.

    Raises:
        AnswerError: they hold less, or the chances are none.
    """
    for chance in chances:
        if math.isnan(chance.logprob) or chance.logprob > _ROUNDING:
            raise AnswerError(f"a log probability of {chance.logprob:g}")
    digits = [(chance.token.strip(), math.exp(chance.logprob)) for chance in chances]
    weights = [(int(text), weight) for text, weight in digits if len(text) == 1 and text in DIGITS]
    mass = math.fsum(weight for _, weight in weights)
    if mass <= 0 or mass < least_mass:
        likeliest = max(chances, key=lambda chance: chance.logprob).token if chances else ""
        raise AnswerError(
            f"a first token that is a digit with probability {mass:.2g} (logits.least_mass is {least_mass:g}); the "
            f"likeliest is {one_line(repr(likeliest), _SHOWN_CHARACTERS)}"
        )
    if math.fsum(math.exp(chance.logprob) for chance in chances) > 1 + _ROUNDING:
        raise AnswerError("probabilities that add up to more than 1")
    return math.fsum(digit * weight for digit, weight in weights) / mass * FULL_MARKS / HIGHEST
