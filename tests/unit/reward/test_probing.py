"""Attached servers looked at before a run: reachable, authorised, with the model; and one question to see an answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from pydantic import ValidationError

from rc_grpo.config import AnyJudgeConfig, ClientConfig, EditScoreConfig, GroundTruthConfig, ServerConfig
from rc_grpo.images import decode_rgb
from rc_grpo.pocket.world import PocketWorld
from reward_service import factory
from reward_service.contract import Answer
from reward_service.editscore import Sample
from reward_service.judge import JudgeSetupError
from reward_service.probing import Finding, probe, sample
from reward_service.serving.endpoint import AttachedServer
from tests.unit.reward.chat_server import ChatServer, marks, refusal, serving, texts
from tests.unit.reward.test_editscore import good, shown

TASK = PocketWorld("train", 1)[0]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")


def judge(*urls: str, **more: Any) -> EditScoreConfig:
    return EditScoreConfig(
        kind="editscore",
        model=more.pop("model", "judge"),
        family="qwen2_5_vl",
        urls=urls,
        workers=max(1, len(urls)),
        client=ClientConfig(tries=2, backoff_s=0.001, backoff_max_s=0.002),
        server=ServerConfig(reach_deadline_s=0.1, probe_deadline_s=0.5),
        **more,
    )


def test_every_server_of_every_judge_is_looked_at_and_none_is_asked_a_question() -> None:
    async def run() -> tuple[str, list[Finding], ChatServer]:
        async with serving(good) as server:
            judges: dict[str, AnyJudgeConfig] = {
                "truth": GroundTruthConfig(),
                "own": judge(),
                "first": judge(server.url, "http://127.0.0.1:9/v1"),
                "second": judge(server.url, model="other"),
            }
            return server.url, await probe(judges), server

    url, findings, server = asyncio.run(asyncio.wait_for(run(), 10))
    assert [(finding.judge, finding.url, finding.state) for finding in findings] == [
        ("first", url, "serves"),
        ("first", "http://127.0.0.1:9/v1", "unusable"),
        ("second", url, "unusable"),
    ]
    assert findings[0].said == ""
    assert "connection refused" in findings[1].said
    assert "no model 'other'; it has judge" in findings[2].said
    assert server.requests == []


def found(**answers: Any) -> Finding:
    async def run() -> Finding:
        async with serving(good) as server:
            for name, answer in answers.items():
                setattr(server, name, answer)
            (finding,) = await probe({"j": judge(server.url)})
            return finding

    return asyncio.run(asyncio.wait_for(run(), 10))


@pytest.mark.parametrize(
    ("answers", "state", "says"),
    [
        ({"health_answer": lambda: refusal(503, "loading weights")}, "loads", "503: loading weights"),
        ({"models_answer": lambda: refusal(503, "engine starts")}, "loads", "503: engine starts"),
        ({"models_answer": lambda: web.Response(text="<html>")}, "unusable", "<html>"),
        ({"models_answer": lambda: refusal(403, "not yours")}, "unusable", "403: not yours"),
        ({"models_answer": lambda: refusal(400, "bad")}, "unusable", "400: bad"),
        ({"models_answer": lambda: web.json_response({"data": []})}, "unusable", "it has none"),
    ],
)
def test_what_would_be_waited_for_is_told_from_what_would_end_a_run(answers: Any, state: str, says: str) -> None:
    finding = found(**answers)
    assert finding.state == state
    assert says in finding.said
    assert "\n" not in finding.said


def test_a_key_that_is_wrong_or_missing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "wrong")
    assert "401" in found().said
    monkeypatch.delenv("RC_GRPO_JUDGE_KEY")
    assert "$RC_GRPO_JUDGE_KEY" in found().said


def test_one_question_about_a_task_and_an_edit_brings_what_the_judge_says_and_what_it_means(tmp_path: Path) -> None:
    edited = np.full((64, 64, 3), 200, np.uint8)

    async def run(text: str) -> tuple[Sample, list[dict[str, Any]]]:
        async def reply(_: dict[str, Any]) -> web.Response:
            return texts(text)

        async with serving(reply) as server:
            return await sample(judge(server.url), TASK, edited, tmp_path), server.requests

    said, requests = asyncio.run(run(marks(20, 18)))
    assert said == Sample(marks(20, 18), Answer((20.0, 18.0), "so"))
    (body,) = requests
    images = shown(body)
    assert [image.shape for image in images] == [(64, 64, 3)] * 2
    np.testing.assert_array_equal(images[1], edited)
    assert TASK.instruction in json.dumps(body)
    assert decode_rgb(TASK.source).shape != (64, 64, 3)
    weak, _ = asyncio.run(run("nice \ud83d"))
    assert (weak.raw, weak.answer) == ("nice \ufffd", None)
    assert "not JSON" in (weak.fault or "")


def test_a_question_that_is_refused_is_a_wrong_setup(tmp_path: Path) -> None:
    async def run() -> None:
        async def reply(_: dict[str, Any]) -> web.Response:
            return refusal(400, "At most 1 image(s)")

        async with serving(reply) as server:
            await sample(judge(server.url), TASK, decode_rgb(TASK.source), tmp_path)

    with pytest.raises(JudgeSetupError, match="At most 1 image"):
        asyncio.run(run())


def test_a_judge_s_own_server_is_started_asked_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    class Own(AttachedServer):
        async def open(self) -> None:
            did.append("opened")
            await super().open()

        async def close(self) -> None:
            did.append("closed")
            await super().close()

    async def run() -> Sample:
        async def reply(body: dict[str, Any]) -> web.Response:
            did.append("asked")
            return texts(*[marks(20, 18)] * body["n"])

        async with serving(reply) as server:
            own = Own(server.url, "key", ServerConfig())
            monkeypatch.setattr(factory, "VllmServer", lambda *_, **__: own)
            return await sample(judge(), TASK, decode_rgb(TASK.source), tmp_path)

    assert asyncio.run(run()).answer == Answer((20.0, 18.0), "so")
    # Once as every judge is at its opening, and once about the task.
    assert did == ["opened", "asked", "asked", "closed"]


@pytest.mark.parametrize(
    "url",
    [
        "judge-1:8000/v1",
        "judge-1",
        "ftp://judge/v1",
        "",
        "http://",
        "http:///v1",
        "http://judge:port/v1",
        "http://judge:99999/v1",
        "http://[::1/v1",
        "http://judge 1/v1",
        "http://judge/v1\n",
        "http://judge/v1?key=x",
        "http://judge/v1#x",
    ],
)
def test_a_url_that_is_none_is_a_wrong_configuration(url: str) -> None:
    with pytest.raises(ValidationError, match="http://host:port/v1"):
        judge(url)


@pytest.mark.parametrize(
    "url", ["http://judge:8000/v1", "https://[::1]:8000/v1", "http://10.0.0.1", "https://x/a/b/v1/"]
)
def test_a_url_that_is_one_is_taken(url: str) -> None:
    assert judge(url).urls == (url,)
