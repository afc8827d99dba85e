"""The pairwise judge against a real HTTP server: what it shows, what it makes of answers and of what is none."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from aiohttp import web

from rc_grpo.config import PairwiseConfig, SamplingConfig, ServerConfig
from reward_service.factory import check_judge, pair_question
from reward_service.judge import JudgeSetupError, JudgeUnavailableError, Verdict
from reward_service.pairwise.judge import PairwiseJudge
from reward_service.pairwise.question import DEFAULT
from reward_service.prompts import PromptError
from reward_service.serving.endpoint import AttachedServer
from tests.unit.reward.chat_server import Reply, refusal, serving, texts
from tests.unit.reward.test_editscore import CLIENT, TASK, shown

GREYS = (40, 200, 120, 90, 160)
IMAGES = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in GREYS])


def settings(**more: Any) -> PairwiseConfig:
    return PairwiseConfig.model_validate({"kind": "pairwise", "model": "judge", "client": CLIENT, **more})


def winner(name: str) -> str:
    return json.dumps({"winner": name})


def greys(body: dict[str, Any]) -> tuple[int, int]:
    """What is shown as A and as B."""
    _, first, second = shown(body)
    return int(first[0, 0, 0]), int(second[0, 0, 0])


async def brighter(body: dict[str, Any]) -> web.Response:
    first, second = greys(body)
    return texts(*[winner("Image A" if first > second else "Image B")] * body["n"])


def score(
    reply: Reply, config: PairwiseConfig | None = None, images: np.ndarray = IMAGES
) -> tuple[Sequence[Verdict], list[dict[str, Any]]]:
    async def run() -> tuple[Sequence[Verdict], list[dict[str, Any]]]:
        async with serving(reply) as server:
            chosen = config or settings()
            endpoint = AttachedServer(server.url, "key", ServerConfig(start_deadline_s=2))
            judge = PairwiseJudge(chosen, endpoint, pair_question(chosen))
            try:
                await judge.open()
                server.requests.clear()
                return await judge.score(TASK, images), server.requests
            finally:
                await judge.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_every_pair_is_shown_in_both_orders_behind_the_source_and_shares_of_wins_are_the_rewards() -> None:
    verdicts, requests = score(brighter)
    assert [verdict.reward for verdict in verdicts] == [0.0, 1.0, 0.5, 0.25, 0.75]
    assert verdicts[2].reason == "won 2, lost 2, tied 0 of 4 comparisons"
    asked = Counter(greys(body) for body in requests)
    assert asked == {(first, second): 1 for first in GREYS for second in GREYS if first != second}
    parts = [part.get("text", "IMAGE") for part in requests[0]["messages"][-1]["content"]]
    assert [part.strip() for part in parts[1:]] == ["IMAGE", "Image A:", "IMAGE", "Image B:", "IMAGE"]
    assert TASK.instruction in parts[0]
    assert requests[0]["response_format"]["json_schema"]["schema"]["properties"]["winner"]["enum"][2] == "Tie"


def test_in_a_larger_group_each_meets_so_many_others_and_another_order_changes_no_reward() -> None:
    several = np.stack([np.full((32, 32, 3), 20 * place, np.uint8) for place in range(9)])
    config = settings(comparisons=4)
    verdicts, requests = score(brighter, config, several)
    met = Counter(grey for body in requests for grey in greys(body))
    assert set(met.values()) == {4 * 2}
    assert verdicts[8].reward == 1.0
    order = [3, 8, 0, 5, 1, 7, 2, 6, 4]
    moved, _ = score(brighter, config, several[order])
    assert [verdict.reward for verdict in moved] == [verdicts[place].reward for place in order]


def test_a_judge_that_prefers_a_place_sees_ties() -> None:
    async def first(body: dict[str, Any]) -> web.Response:
        return texts(winner("Image A"))

    verdicts, _ = score(first)
    assert [verdict.reward for verdict in verdicts] == [0.5] * 5
    assert "in 4 the order of showing decided, which is a tie" in (verdicts[0].reason or "")


def test_of_several_passes_most_decide() -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        right = "Image A" if greys(body)[0] > greys(body)[1] else "Image B"
        return texts(winner(right), winner("Tie"), winner(right))

    verdicts, requests = score(reply, settings(sampling=SamplingConfig(passes=3)), IMAGES[:2])
    assert [verdict.reward for verdict in verdicts] == [0.0, 1.0]
    assert {body["n"] for body in requests} == {3}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda: texts("A"), "not JSON"),
        (lambda: texts(winner("image a")), "no object whose `winner`"),
        (lambda: texts('"Image A"'), "no object whose `winner`"),
        (lambda: texts(winner("Tie"), finish="length"), "cut off"),
        (lambda: refusal(400, "a bad image"), "a bad image"),
    ],
)
def test_a_candidate_whose_comparisons_fail_has_no_reward_and_the_others_have_those_among_themselves(
    answer: Any, says: str
) -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        return answer() if 120 in greys(body) else await brighter(body)

    verdicts, requests = score(reply)
    assert [math.isnan(verdict.reward) for verdict in verdicts] == [False, False, True, False, False]
    assert [verdicts[place].reward for place in (0, 3, 4, 1)] == [0.0, 1 / 3, 2 / 3, 1.0]
    assert says in (verdicts[2].reason or "")
    seeds = {body["seed"] for body in requests if greys(body) == (120, 40)}
    assert seeds <= ({42} if "bad image" in says else {42, 43, 44})


def test_an_answer_that_does_not_parse_is_asked_for_again_with_another_seed() -> None:
    async def reply(body: dict[str, Any]) -> web.Response:
        return texts("well,") if body["seed"] == 42 else await brighter(body)

    verdicts, _ = score(reply, images=IMAGES[:2])
    assert [(verdict.reward, verdict.attempts) for verdict in verdicts] == [(0.0, 2), (1.0, 2)]


def test_a_server_that_is_down_is_not_a_failed_score() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(503, "engine died")

    with pytest.raises(JudgeUnavailableError, match="engine died"):
        score(reply)


def test_one_edit_alone_is_a_failed_score_and_is_not_asked_about() -> None:
    (verdict,), requests = score(brighter, images=IMAGES[:1])
    assert math.isnan(verdict.reward)
    assert "one edit alone" in (verdict.reason or "")
    assert requests == []


def test_a_server_that_takes_no_three_images_is_told_at_opening() -> None:
    async def reply(_: dict[str, Any]) -> web.Response:
        return refusal(400, "at most 2 image(s)")

    with pytest.raises(JudgeSetupError, match=r"three images.*\{\"image\": 3\}"):
        score(reply)


def test_a_published_file_is_read_as_it_is_and_one_that_shows_not_all_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "v1.yaml"
    tree = yaml.safe_load(DEFAULT.read_text()) | {"prompt_id": "vlm/x", "version": "v1", "metadata": {"a": "b"}}
    file.write_text(yaml.safe_dump(tree))
    asked = pair_question(settings(prompts=file))
    assert asked.chat(["s", "a", "b"], "x") == pair_question(settings()).chat(["s", "a", "b"], "x")
    for wrong, says in ((tree["user_prompt"][:-1], "second edit 0 times"), (tree["user_prompt"][1:], "instruction")):
        file.write_text(yaml.safe_dump(tree | {"user_prompt": wrong}))
        with pytest.raises(PromptError, match=rf"v1.yaml(.|\n)*{says}"):
            check_judge("pair", settings(prompts=file))


def test_an_instruction_is_put_in_as_it_is() -> None:
    odd = r"make {{ instruction }} \1 and {0}"
    (message,) = (m for m in pair_question(settings()).chat(["s", "a", "b"], odd) if m["role"] == "user")
    assert odd in message["content"][0]["text"]
