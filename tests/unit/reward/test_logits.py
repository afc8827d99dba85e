"""Marks read from one token's chances: what is asked, what counts, and that nothing else is a reward."""

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from pydantic import ValidationError

from rc_grpo.config import ClientConfig, EditScoreConfig, ServerConfig
from reward_service.asking.openai_answers import Chance
from reward_service.contract import AnswerError, overall
from reward_service.factory import check_judge, make_judge
from reward_service.judge import JudgeSetupError, Verdict
from reward_service.logits.judge import LogitsJudge
from reward_service.logits.questions import DEFAULT, DigitQuestions
from reward_service.logits.reading import expected_mark
from reward_service.prompts import PromptError
from reward_service.serving.endpoint import AttachedServer
from tests.unit.reward.chat_server import ChatServer, Reply, chances, refusal, serving, texts
from tests.unit.reward.test_editscore import IMAGES, TASK, shown

MARKS = {"Success": 8, "over-editing": 6, "Naturalness": 9, "artifacts": 3}


def settings(**more: Any) -> EditScoreConfig:
    client = ClientConfig(request_deadline_s=2.0, tries=2, backoff_s=0.01, backoff_max_s=0.02)
    return EditScoreConfig.model_validate(
        {"kind": "editscore", "model": "judge", "family": "qwen2_5_vl", "scoring": "logits", "client": client, **more}
    )


def score(
    reply: Reply, config: EditScoreConfig | None = None, images: np.ndarray = IMAGES
) -> tuple[Sequence[Verdict], list[dict[str, Any]]]:
    async def run() -> tuple[Sequence[Verdict], list[dict[str, Any]]]:
        async with serving(reply) as server:
            judge = judge_at(server, config)
            await judge.open()
            server.requests.clear()
            try:
                return await judge.score(TASK, images), server.requests
            finally:
                await judge.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def judge_at(server: ChatServer, config: EditScoreConfig | None = None) -> LogitsJudge:
    endpoint = AttachedServer(server.url, "key", ServerConfig(start_deadline_s=2))
    return LogitsJudge(config or settings(), endpoint, DigitQuestions.load(DEFAULT), "qwen2_5_vl")


def mark_of(body: dict[str, Any]) -> int:
    (mark,) = (mark for words, mark in MARKS.items() if words in body["messages"][-1]["content"][-1]["text"])
    return mark


async def good(body: dict[str, Any]) -> web.Response:
    if not body.get("logprobs"):
        return texts("7")
    return chances({str(mark_of(body)): 0.75, f" {mark_of(body)}": 0.25})


def test_four_questions_of_one_token_make_the_reward_and_nothing_is_generated() -> None:
    verdicts, requests = score(good)
    of_25 = {name: mark * 25 / 9 for name, mark in MARKS.items()}
    whole = overall([of_25["Success"], of_25["over-editing"]], [of_25["Naturalness"], of_25["artifacts"]])
    assert [verdict.reward for verdict in verdicts] == pytest.approx([whole / 10] * 3)
    assert verdicts[0].subscores == pytest.approx(
        {"success": 8 / 0.36, "over_editing": 6 / 0.36, "naturalness": 9 / 0.36, "artifacts": 3 / 0.36}
    )
    assert Counter(len(shown(body)) for body in requests) == {1: 6, 2: 6}
    for body in requests:
        assert (body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (1, True, 20)
        assert (body["temperature"], body["top_p"]) == (1.0, 1.0)  # the model's own chances
        assert "response_format" not in body


def test_what_a_group_shares_precedes_what_it_does_not() -> None:
    _, requests = score(good)
    content = [body["messages"][-1]["content"] for body in requests if len(shown(body)) == 2]
    # Words, the source's introduction and the source; then the edit's, the edit and the mark that is asked for.
    assert {len(parts) for parts in content} == {6}
    assert all(parts[:4] == content[0][:4] for parts in content)
    assert TASK.instruction in content[0][0]["text"]
    np.testing.assert_array_equal(shown(requests[0])[0] if len(shown(requests[0])) == 2 else IMAGES[0], IMAGES[0])
    for edit in IMAGES:
        of_edit = [body for body in requests if len(shown(body)) == 2 and np.array_equal(shown(body)[1], edit)]
        heads = [body["messages"][-1]["content"][:-1] for body in of_edit]
        assert heads[0] == heads[1]  # both marks of an edit, all but the last words


@pytest.mark.parametrize(
    ("likeliest", "digit"),
    [
        ({"7": 1.0}, 7.0),
        ({"0": 0.5, "9": 0.5}, 4.5),
        ({"4": 0.3, " 4": 0.3, "\n6": 0.2, "The": 0.2}, (0.6 * 4 + 0.2 * 6) / 0.8),
        # 24 is no mark of ten levels, and neither are other scripts' figures.
        ({"2": 0.6, "24": 0.3, "٣": 0.05, "²": 0.05}, 2.0),
    ],
)
def test_a_mark_is_the_expectation_over_the_digits(likeliest: dict[str, float], digit: float) -> None:
    told = [Chance(token, math.log(p)) for token, p in likeliest.items()]
    assert expected_mark(told, 0.5) == pytest.approx(digit / 9 * 25)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ([Chance("The", -0.1), Chance("3", -3.0)], "probability 0.05"),
        ([Chance("The", -0.1)], "'The'"),
        ([Chance("7", math.nan)], "log probability"),
        ([Chance("7", 1.0)], "log probability"),
        ([Chance("7", -0.1), Chance("8", -0.1)], "more than 1"),
        ([Chance("7", -math.inf)], "probability 0"),
    ],
)
def test_anything_else_is_no_mark(told: list[Chance], says: str) -> None:
    with pytest.raises(AnswerError, match=says):
        expected_mark(told, 0.5)


@pytest.mark.parametrize(
    ("answer", "says"),
    [(lambda: chances({"Sure": 0.9, "5": 0.1}), "Sure"), (lambda: refusal(400, "prompt is too long"), "too long")],
)
def test_a_candidate_whose_first_token_is_no_digit_is_nan_and_touches_no_other(answer: Any, says: str) -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        images = shown(body)
        return answer() if len(images) == 1 and np.array_equal(images[0], IMAGES[1]) else await good(body)

    verdicts, _ = score(reply)
    assert [math.isnan(verdict.reward) for verdict in verdicts] == [False, True, False]
    assert says in (verdicts[1].reason or "")
    assert verdicts[1].subscores == {}


def test_a_server_may_be_held_to_a_digit() -> None:
    verdicts, requests = score(good, settings(logits={"held": True}))
    assert np.isfinite([verdict.reward for verdict in verdicts]).all()
    assert {str(body["response_format"]["json_schema"]["schema"]) for body in requests} == {
        "{'type': 'integer', 'minimum': 0, 'maximum': 9}"
    }


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (lambda body: texts("7"), "no `logprobs`"),
        (
            lambda body: chances({"2": 0.9}) if body.get("logprobs") else texts("24"),
            "asked for one digit and says '24'",
        ),
        (lambda body: refusal(400, "top_logprobs must be at most 5"), "max-logprobs"),
        (lambda body: chances({}), "empty list `top_logprobs`"),
    ],
)
def test_a_server_that_does_not_tell_chances_of_digits_is_refused_at_opening(reply: Any, says: str) -> None:
    async def answered(body: dict[str, Any]) -> web.Response:
        answer: web.Response = reply(body)
        return answer

    with pytest.raises(JudgeSetupError, match=says):
        score(answered)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampling": {"passes": 4}}, "all passes would be alike"),
        ({"prompts": "editscore"}, "logits.prompts"),
        ({"order": "words_first"}, "words always come first"),
        ({"reasoning_characters": 100}, "nothing is reasoned"),
        ({"scoring": "text", "logits": {"held": True}}, "set scoring: logits"),
    ],
)
def test_what_logits_have_no_use_for_is_refused_by_name(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        settings(**changes)


def test_a_question_file_is_checked_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    file = tmp_path / "four.yaml"
    file.write_text('sc: {text: "{instruction}", marks: {success: a}}\npq: {text: b, marks: {}}\n')
    config = settings(urls=["http://judge:1/v1"], logits={"prompts": file})
    with pytest.raises(PromptError, match=r"(?s)four\.yaml.*sc\.marks must ask for success and over_editing"):
        check_judge("vlm", config)
    fine = settings(urls=["http://judge:1/v1"])
    check_judge("vlm", fine)
    assert isinstance(make_judge("w", fine, tmp_path, ("http://judge:1/v1", "key")), LogitsJudge)
