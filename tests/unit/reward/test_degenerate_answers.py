"""One degenerate answer costs its own candidate at most: asked again with another seed, then NaN with the reason."""

import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.contract import REASONING_CHARACTERS, AnswerError, parse_answer
from tests.unit.reward.chat_server import marks, texts
from tests.unit.reward.test_editscore import IMAGES, good, score, shown

DEGENERATE = {
    "nothing": "",
    "a NUL": "\x00",
    "half an emoji": "\ud83d",
    "brackets": 5000 * "[",
    "brackets that close": 5000 * "[" + 5000 * "]",
    "braces": 5000 * '{"score":',
    "brackets for a score": '{"score": ' + 100_000 * "[" + "}",
    "brackets for a reason": '{"score": [1, 2], "reasoning": ' + 5000 * "[" + 5000 * "]" + "}",
    "digits": '{"score": [' + 5000 * "1" + ", 20]}",
    "digits beside the score": '{"score": [1, 2], "x": ' + 5000 * "9" + "}",
    "digits after a point and many": '{"score": [1' + 5000 * "0" + ".5, 20]}",
    "an exponent": '{"score": [1e400, 20]}',
    "NaN": '{"score": [NaN, 20]}',
    "Infinity": '{"score": [20, -Infinity]}',
    "truth": '{"score": [true, true]}',
    "out of range": '{"score": [20, 26]}',
    "below": '{"score": [-1, 20]}',
    "words": '{"score": ["20", "21"]}',
    "one": '{"score": [20]}',
    "three": '{"score": [20, 20, 20]}',
    "none": '{"score": []}',
    "nested": '{"score": [[20, 20]]}',
    "a level too deep": '{"answer": {"score": [20, 20]}}',
    "an object": '{"score": {"0": 20, "1": 20}}',
    "no score": '{"reasoning": "fine"}',
    "a list of one": '[{"score": [20, 20]}]',
    "null": "null",
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_it_costs_its_candidate_alone_after_other_seeds_were_tried(name: str) -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        images = shown(body)
        bad = len(images) == 1 and np.array_equal(images[0], IMAGES[1])
        return texts(DEGENERATE[name]) if bad else await good(body)

    verdicts, requests = score(reply)
    assert [math.isnan(verdict.reward) for verdict in verdicts] == [False, True, False]
    reason = verdicts[1].reason or ""
    assert reason.startswith("pq: no answer in 3 attempts, the last was ")
    assert len(reason) < 1500
    reason.encode()
    asked = [body["seed"] for body in requests if len(shown(body)) == 1 and np.array_equal(shown(body)[0], IMAGES[1])]
    assert asked == [42, 43, 44]


@pytest.mark.parametrize("name", DEGENERATE)
def test_another_seed_can_mend_it(name: str) -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        return texts(DEGENERATE[name] if body["seed"] == 42 else marks(25, 25))

    verdicts, _ = score(reply, images=IMAGES[:1])
    assert (verdicts[0].reward, verdicts[0].attempts) == (1.0, 2)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["score", "reasoning"]), inner),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries({"score": st.lists(st.integers(-5, 30) | st.floats() | VALUES, max_size=3)})
WRITTEN = (ANSWERS | VALUES).map(json.dumps)


@settings(max_examples=200)
@given(
    st.text(st.characters() | st.characters(categories=["Cs"])) | WRITTEN | st.tuples(WRITTEN, st.text()).map("".join)
)
def test_whatever_is_said_is_two_marks_in_range_or_no_answer(text: str) -> None:
    try:
        answer = parse_answer(text)
    except AnswerError as error:
        str(error).encode()
        return
    # Not by the parser's own rules: what the text says, read again.
    said = json.loads(text)["score"]
    assert list(answer.score) == said
    assert all(isinstance(mark, float) and 0 <= mark <= 25 for mark in answer.score)
    assert not any(isinstance(mark, bool) for mark in said)
    assert len(answer.reasoning) <= REASONING_CHARACTERS
    answer.reasoning.encode()


@pytest.mark.parametrize("part", ["score", "reasoning"])
def test_no_depth_of_brackets_is_another_error_however_deep_the_caller_stands(part: str) -> None:
    def from_depth(frames: int, text: str) -> None:
        if frames:
            from_depth(frames - 1, text)
            return
        try:
            parse_answer(text)
        except AnswerError:
            return

    other = '"score": [1, 2], ' if part == "reasoning" else ""
    for depth in range(1, sys.getrecursionlimit(), 7):
        from_depth(100, "{" + other + f'"{part}": ' + depth * "[" + depth * "]" + "}")
