"""What judges and their servers say: text for `parse_answer`, bodies for the OpenAI reader, error bodies to quote."""

import json
import math

from hypothesis import strategies as st

from reward_service.asking.openai_answers import Completion, ForeignAnswerError, read_completions, read_models
from reward_service.asking.transport import QUOTED_CHARACTERS, Reply, is_loopback
from reward_service.contract import REASONING_CHARACTERS, Answer, AnswerError, parse_answer
from tests.fuzz.mutations import TEXTS, json_texts
from tests.fuzz.target import Target, ask

ANSWER = {"reasoning": "The cat is there.", "score": [20, 18.5]}
COMPLETION = {
    "id": "chat-1",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": json.dumps(ANSWER)}, "finish_reason": "stop"},
        {
            "index": 1,
            "message": {"content": [{"type": "text", "text": "a"}, "b"], "refusal": None},
            "finish_reason": "length",
        },
        {"index": 2, "message": {"content": None, "refusal": "no"}, "finish_reason": "content_filter"},
    ],
}
MODELS = {"object": "list", "data": [{"id": "judge", "object": "model"}]}
ERROR = {"error": {"message": "At most 1 image(s) may be provided", "code": 400}, "detail": {"message": "no"}}
LONGEST_REMARK = 400


def check_answer(text: str) -> None:
    answer = ask(lambda: parse_answer(text), AnswerError)
    if isinstance(answer, Answer):
        said = json.loads(text)["score"]
        assert list(answer.score) == [float(mark) for mark in said]
        assert len(said) == 2
        assert all(0 <= mark <= 25 and math.isfinite(mark) and type(mark) is float for mark in answer.score)
        _storable(answer.reasoning, REASONING_CHARACTERS)


def check_completions(body: str) -> None:
    found = ask(lambda: read_completions(body), ForeignAnswerError)
    if isinstance(found, list):
        assert found
        for completion in found:
            assert isinstance(completion, Completion)
            assert isinstance(completion.text, str)
            assert isinstance(completion.remark, str)
            _storable(completion.remark, LONGEST_REMARK)


def check_models(body: str) -> None:
    found = ask(lambda: read_models(body), ForeignAnswerError)
    assert not isinstance(found, list) or all(isinstance(name, str) for name in found)


def check_quote(body: str) -> None:
    for location in ("", body):
        gist = ask(lambda location=location: Reply(400, body, location=location).gist)
        _storable(gist, QUOTED_CHARACTERS + 40)
        assert "\n" not in gist
        assert gist.strip()


def check_address(url: str) -> None:
    assert ask(lambda: is_loopback(url)) in (True, False)


def _storable(text: str, limit: int) -> None:
    text.encode()
    assert "\x00" not in text
    assert len(text) <= limit


_URLS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["http://", "https://", "", "http:", "file://", "http://user:pw@"]),
    TEXTS
    | st.sampled_from(["localhost", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f000001", "xn--", "a.localhost."]),
    st.sampled_from(["", ":80", ":99999999", ":x", "."]),
    st.sampled_from(["", "/v1", "/\x00", "?a=b"]),
)
_CHECKS = {
    "answer": (json_texts(ANSWER) | TEXTS, check_answer),
    "completions": (json_texts(COMPLETION), check_completions),
    "models": (json_texts(MODELS), check_models),
    "quote": (json_texts(ERROR) | TEXTS, check_quote),
    "address": (_URLS, check_address),
}

TARGET = Target(
    "judge_answers",
    st.one_of(*(st.tuples(st.just(name), inputs) for name, (inputs, _) in _CHECKS.items())),
    lambda drawn: _CHECKS[drawn[0]][1](drawn[1]),
)
