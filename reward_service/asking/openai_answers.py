"""What answers of the OpenAI protocol hold, read from whatever a server sent as one."""

import json
from dataclasses import dataclass
from typing import Any

from rc_grpo.storable import one_line

QUOTED_CHARACTERS = 300
"""Of what a server said, in a remark."""


class ForeignAnswerError(ValueError):
    """An answer is not of the protocol; the message says what it lacks."""


@dataclass(frozen=True)
class Completion:
    """One of the texts that a request brought.

    Attributes:
        text: as generated; empty where the model was not let speak.
        finished: False when it was cut off, at ``max_tokens`` if ``remark`` says nothing else.
        remark: why there is no text, or why it ended.
    """

    text: str
    finished: bool
    remark: str = ""


@dataclass(frozen=True)
class Chance:
    """A token that might have come, and the logarithm of its probability, whatever number a server put there."""

    token: str
    logprob: float


def read_completions(body: str) -> list[Completion]:
    """Read the answer to a chat request.

    A message without text is legal (a refusal, reasoning that used up ``max_tokens``), and so is one in parts.

    Raises:
        ForeignAnswerError: it is no completion.
    """
    choices = _list(_content(body), "choices")
    if not choices:
        raise ForeignAnswerError("an empty list `choices`")
    return [_completion(choice) for choice in choices]


def read_chances(body: str) -> list[Chance]:
    """Read the likeliest first tokens of the answer to a chat request that asked for them.

    Raises:
        ForeignAnswerError: it is no completion, or tells no chances.
    """
    choices = _list(_content(body), "choices")
    told = choices[0].get("logprobs") if choices and isinstance(choices[0], dict) else None
    tokens = _list(told, "content") if isinstance(told, dict) else []
    if not tokens:
        raise ForeignAnswerError("no `logprobs` of a first token, which were asked for")
    likeliest = _list(tokens[0], "top_logprobs")
    if not likeliest:
        raise ForeignAnswerError("an empty list `top_logprobs`")
    return [_chance(entry) for entry in likeliest]


def read_models(body: str) -> list[str]:
    """Read the names of the models that a server has.

    Raises:
        ForeignAnswerError: it is no list of models.
    """
    names = [entry.get("id") if isinstance(entry, dict) else None for entry in _list(_content(body), "data")]
    if not all(isinstance(name, str) for name in names):
        raise ForeignAnswerError("a model without an `id`")
    return [str(name) for name in names]


def _content(body: str) -> Any:
    try:
        return json.loads(body)
    # Thousands of digits are a ValueError, thousands of brackets a RecursionError.
    except (ValueError, RecursionError) as error:
        raise ForeignAnswerError("no JSON") from error


def _list(content: Any, name: str) -> list[Any]:
    values = content.get(name) if isinstance(content, dict) else None
    if not isinstance(values, list):
        raise ForeignAnswerError(f"no list `{name}`")
    return values


def _completion(choice: Any) -> Completion:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ForeignAnswerError("a choice without a `message`")
    text, reason = _text(message.get("content")), choice.get("finish_reason")
    if text is None:
        refusal = message.get("refusal")
        why = f"refusal {_shown(refusal)}" if isinstance(refusal, str) else f"finish_reason {_shown(reason)}"
        return Completion("", finished=False, remark=f"the server sent no text ({why})")
    if reason in ("stop", "length"):
        return Completion(text, finished=reason == "stop")
    return Completion(text, finished=False, remark=f"ended by finish_reason {_shown(reason)}")


def _chance(entry: Any) -> Chance:
    token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
    if not isinstance(token, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise ForeignAnswerError("an entry of `top_logprobs` without `token` and `logprob`")
    return Chance(token, float(logprob))


def _shown(value: Any) -> str:
    """Return whatever a server put at a place, as a remark quotes it."""
    try:
        return one_line(repr(value), QUOTED_CHARACTERS)
    except RecursionError:
        return "(nested too deeply)"


def _text(content: Any) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ForeignAnswerError("a `content` that is no text")
    texts = [_part(part) for part in content]
    return "".join(text for text in texts if text is not None) if texts else None


def _part(part: Any) -> str | None:
    """Return the text of a part, or None for one of another kind."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, dict) else None
    if not isinstance(part, dict) or not isinstance(part.get("type", "text"), str):
        raise ForeignAnswerError("a part of `content` that is none")
    if text is not None and not isinstance(text, str):
        raise ForeignAnswerError("a part of `content` whose `text` is none")
    return text
