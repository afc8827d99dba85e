import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.contract import ANSWER_SCHEMA, QUESTIONS, SUBSCORES, Answer, AnswerError, overall, parse_answer
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


@pytest.mark.parametrize("score", [(12.5, 25.0), (0.0, 24.999), (25, 0), (0.25, 7)])
def test_marks_need_not_be_whole(score: tuple[float, float]) -> None:
    parsed = parse_answer(answer(score))
    assert parsed.score == score
    assert all(type(mark) is float for mark in parsed.score)


def test_a_reason_is_text_and_may_be_missing() -> None:
    assert parse_answer('{"score": [1, 2]}') == Answer((1.0, 2.0), "")
    assert parse_answer(answer([1, 2], reasoning=["a", 1])).reasoning == "['a', 1]"


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
        answer([20, 25.0001]),
        answer([-0.0001, 20]),
        answer([20, float("nan")]),
        answer([]),
        answer({"0": 20, "1": 21}),
        '{"score": [' + 5000 * "1" + ", 20]}",
        '{"score": ' + 200_000 * "[",
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("20, 21", r"^not JSON \(Extra data\): '20, 21'$"),
        ("[20, 21]", r"^no object with a list `score`: '\[20, 21\]'$"),
        (answer(20), r"^no object with a list `score`: "),
        (answer([20, 26]), r"^score is not two numbers in 0\.\.25: '\[20, 26\]'$"),
        ("x" * 120, f"^not JSON .*: '{'x' * 120}'$"),
        ("x" * 121, rf"^not JSON .*: '{'x' * 120}\.\.\.'$"),
    ],
)
def test_what_is_no_answer_is_shown_up_to_120_characters(text: str, said: str) -> None:
    with pytest.raises(AnswerError, match=said) as caught:
        parse_answer(text)
    assert isinstance(caught.value, ValueError)


def test_the_schema_is_two_whole_numbers_from_0_to_25_after_a_text_and_nothing_else() -> None:
    marks = {"type": "integer", "minimum": 0, "maximum": 25}
    expected = {
        "type": "object",
        "properties": {
            "reasoning": {"type": "string"},
            "score": {"type": "array", "items": marks, "minItems": 2, "maxItems": 2},
        },
        "required": ["reasoning", "score"],
        "additionalProperties": False,
    }
    assert expected == ANSWER_SCHEMA


def test_the_questions_and_their_marks_have_editscores_order() -> None:
    assert QUESTIONS == ("sc", "pq")
    assert SUBSCORES == {"sc": ("success", "over_editing"), "pq": ("naturalness", "artifacts")}


def test_the_schema_asks_for_the_reasoning_first() -> None:
    assert list(ANSWER_SCHEMA["properties"]) == ["reasoning", "score"]
