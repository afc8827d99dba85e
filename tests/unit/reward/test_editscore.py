"""The EditScore judge against a real HTTP server: what it asks, how it aggregates, what it does with bad answers."""

import asyncio
import base64
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from rc_grpo.config import ClientConfig, EditScoreConfig, SamplingConfig, ServerConfig
from rc_grpo.images import decode_rgb
from rc_grpo.pocket.world import PocketWorld
from reward_service.contract import overall
from reward_service.editscore import EditScoreJudge
from reward_service.judge import JudgeSetupError, JudgeUnavailableError, Verdict
from reward_service.prompts import DEFAULT_PROMPTS, Prompts
from reward_service.serving.endpoint import AttachedServer
from reward_service.vision_judge import bounded
from tests.unit.reward.chat_server import Reply, marks, refusal, serving, texts

TASK = PocketWorld("train", 1)[0]
assert TASK.target is not None
IMAGES = np.stack([decode_rgb(TASK.source), decode_rgb(TASK.target), np.full((128, 128, 3), 200, np.uint8)])
CLIENT = ClientConfig(request_deadline_s=2.0, tries=2, backoff_s=0.01, backoff_max_s=0.02)


def settings(passes: int = 1, **more: Any) -> EditScoreConfig:
    return EditScoreConfig(
        kind="editscore", model="judge", sampling=SamplingConfig(passes=passes), client=CLIENT, **more
    )


def shown(body: dict[str, Any]) -> list[np.ndarray]:
    """The images of a request, decoded."""
    urls = [part["image_url"]["url"] for part in body["messages"][-1]["content"] if part["type"] == "image_url"]
    return [decode_rgb(base64.b64decode(url.removeprefix("data:image/png;base64,"))) for url in urls]


def score(
    reply: Reply, config: EditScoreConfig | None = None, images: np.ndarray = IMAGES, key: str = "key"
) -> tuple[Sequence[Verdict], list[dict[str, Any]]]:
    async def run() -> tuple[Sequence[Verdict], list[dict[str, Any]]]:
        async with serving(reply) as server:
            chosen = config or settings()
            endpoint = AttachedServer(server.url, key, ServerConfig(start_deadline_s=2))
            judge = EditScoreJudge(chosen, endpoint, Prompts.load(DEFAULT_PROMPTS), "qwen2_5_vl")
            await judge.open()
            server.requests.clear()  # The opening question, see `test_opening`.
            try:
                return await judge.score(TASK, images), server.requests
            finally:
                await judge.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


async def good(body: dict[str, Any]) -> web.Response:
    return texts(*[marks(24, 22) if len(shown(body)) == 2 else marks(23, 25)] * body["n"])


def test_sc_sees_source_and_edit_pq_the_edit_alone_and_the_check_vector_comes_out() -> None:
    verdicts, requests = score(good)
    assert [verdict.reward for verdict in verdicts] == pytest.approx([overall([24, 22], [23, 25]) / 10] * 3)
    assert verdicts[0].subscores == {"success": 24, "over_editing": 22, "naturalness": 23, "artifacts": 25}
    assert verdicts[0].reason == "sc: so | pq: so"
    asked = Counter(len(shown(body)) for body in requests)
    assert asked == {1: 3, 2: 3}
    for body in requests:
        images = shown(body)
        if len(images) == 2:
            np.testing.assert_array_equal(images[0], IMAGES[0])
        assert any(np.array_equal(images[-1], image) for image in IMAGES)
        assert (TASK.instruction in str(body["messages"])) == (len(images) == 2)


def test_passes_are_aggregated_each_on_its_own_and_then_averaged() -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        return texts(marks(25, 25), marks(0, 25)) if len(shown(body)) == 2 else texts(marks(9, 25), marks(25, 25))

    verdicts, requests = score(reply, settings(passes=2))
    # Not the overall score of averaged marks: the second pass failed and is worth nothing.
    assert verdicts[0].reward == pytest.approx(math.sqrt(10 * 3.6) / 2 / 10)
    assert verdicts[0].subscores["success"] == 12.5
    assert {(body["n"], body["seed"]) for body in requests} == {(2, 42)}


def test_what_does_not_parse_is_asked_again_with_other_seeds_and_only_as_often_as_needed() -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        if len(shown(body)) == 1:
            return await good(body)
        if body["seed"] == 42:
            return texts(marks(20, 20), "I'd say 20", marks(20, 20), marks(20, 99))
        return texts(*[marks(10, 10)] * body["n"])

    verdicts, requests = score(reply, settings(passes=4), IMAGES[:1])
    assert [(body["seed"], body["n"]) for body in requests if len(shown(body)) == 2] == [(42, 4), (46, 2)]
    assert verdicts[0].subscores["success"] == 15.0
    assert verdicts[0].attempts == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: texts("no idea"), "not JSON"),
        (lambda: texts(marks(20, 26)), "0..25"),
        (lambda: texts(marks(20, 20), finish="length"), "cut off"),
        (lambda: refusal(400, "prompt is too long"), "too long"),
    ],
)
def test_a_candidate_without_an_answer_is_nan_with_the_reason_and_touches_no_other(answer: Any, says: str) -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        images = shown(body)
        return answer() if len(images) == 1 and np.array_equal(images[0], IMAGES[1]) else await good(body)

    verdicts, requests = score(reply)
    assert [math.isnan(verdict.reward) for verdict in verdicts] == [False, True, False]
    assert says in (verdicts[1].reason or "")
    assert verdicts[1].subscores == {}
    retried = [body["seed"] for body in requests if len(shown(body)) == 1 and np.array_equal(shown(body)[0], IMAGES[1])]
    assert retried == ([42] if "too long" in says else [42, 43, 44])


def test_a_server_that_is_down_is_not_a_failed_score() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(503, "engine died")

    with pytest.raises(JudgeUnavailableError, match="engine died"):
        score(reply)


def test_a_wrong_key_and_an_unknown_model_are_said_before_anything_is_scored() -> None:
    with pytest.raises(JudgeSetupError, match="Unauthorized"):
        score(good, key="wrong")
    with pytest.raises(JudgeSetupError, match=r"no model 'other'.*it has judge"):
        score(good, settings().model_copy(update={"model": "other"}))


def test_images_are_shrunk_to_the_bound_and_never_enlarged() -> None:
    wide = np.zeros((300, 1200, 3), np.uint8)
    assert bounded(wide, 512).shape == (256, 1024, 3)
    small = IMAGES[0]
    assert bounded(small, 512) is small
    _, requests = score(good, settings(image_side=64))
    assert {image.shape for body in requests for image in shown(body)} == {(64, 64, 3)}


def test_a_judge_can_be_slow_with_one_group_and_its_server_sees_no_more_than_agreed() -> None:
    most = []

    async def run() -> None:
        async def reply(body: dict[str, Any]) -> web.Response:
            await asyncio.sleep(0.01)
            return await good(body)

        async with serving(reply) as server:
            config = settings().model_copy(update={"client": ClientConfig(concurrency=3)})
            judge = EditScoreJudge(
                config, AttachedServer(server.url, "key", ServerConfig()), Prompts.load(DEFAULT_PROMPTS), "qwen3_vl"
            )
            await asyncio.gather(*(judge.score(TASK, IMAGES) for _ in range(4)))
            most.append(server.most_at_once)
            await judge.close()

    asyncio.run(run())
    assert most == [3]


def test_words_may_come_first_so_that_edits_of_a_source_share_them_and_it() -> None:
    _, requests = score(good, settings(order="words_first", reasoning_characters=160))
    both = [body for body in requests if len(shown(body)) == 2]
    content = [body["messages"][-1]["content"] for body in both]
    assert all(parts[:4] == content[0][:4] for parts in content)
    assert TASK.instruction in content[0][0]["text"]
    assert {parts[-1]["type"] for parts in content} == {"image_url"}
    for body in requests:
        asked = body["response_format"]["json_schema"]["schema"]["properties"]
        assert asked["reasoning"] == {"type": "string", "maxLength": 160}
        assert asked["score"]["maxItems"] == 2


def test_as_published_the_source_comes_first_and_the_words_last() -> None:
    _, requests = score(good)
    content = [body["messages"][-1]["content"] for body in requests if len(shown(body)) == 2]
    assert all(parts[:2] == content[0][:2] for parts in content)
    assert all(TASK.instruction in parts[-1]["text"] for parts in content)
    assert "maxLength" not in str(requests[0]["response_format"])
