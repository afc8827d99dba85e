import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.contract import ANSWER_SCHEMA, AnswerError, overall, parse_answer
from reward_service.judge import ARTIFACTS, NATURALNESS, OVER_EDITING, SUCCESS, Verdict

MARKS = st.integers(0, 25)


def answer(score: object, **more: object) -> str:
    return json.dumps({"reasoning": "because", "score": score, **more})


def test_the_published_check_vector() -> None:
    assert overall([24, 22], [23, 25]) == 8.997777503361593
    marks = {SUCCESS: 24, OVER_EDITING: 22, NATURALNESS: 23, ARTIFACTS: 25}
    assert Verdict.from_subscores(marks).reward == pytest.approx(0.8997777503361593, abs=1e-15)


@given(MARKS, MARKS)
def test_two_marks_in_range_are_an_answer(first: int, second: int) -> None:
    parsed = parse_answer(answer([first, second]))
    assert (parsed.score, parsed.reasoning) == ((float(first), float(second)), "because")


@given(st.tuples(MARKS, MARKS), st.tuples(MARKS, MARKS))
def test_a_pass_is_worth_0_to_10_and_nothing_where_anything_failed(sc: tuple[int, int], pq: tuple[int, int]) -> None:
    assert 0.0 <= overall(sc, pq) <= 10.0
    assert (overall(sc, pq) == 0.0) == (0 in (*sc, *pq))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would say 20 and 21.",
        "The edit scores 12 of 25, and",
        '{"reasoning": "cut off at 20, 2',
        '```json\n{"reasoning": "", "score": [1, 2]}\n```',
        answer([20, 21]) + " indeed",
        json.dumps([20, 21]),
        json.dumps({"reasoning": "no score"}),
        answer(20),
        answer([20]),
        answer([20, 21, 22]),
        answer([20, 26]),
        answer([-1, 20]),
        answer(["20", "21"]),
        answer([True, False]),
        answer([20, None]),
        answer([float("nan"), 20]),
        answer([float("inf"), 20]),
        answer([[20], [21]]),
    ],
)
def test_anything_else_is_no_answer(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_answer(text)


def test_the_schema_asks_for_the_reasoning_first() -> None:
    assert list(ANSWER_SCHEMA["properties"]) == ["reasoning", "score"]
