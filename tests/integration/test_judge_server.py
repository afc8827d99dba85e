"""The packaged pocket judge on a real vLLM server: it answers, it says what is wrong, it leaves nothing behind."""

import asyncio
import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from deploy.cli import app
from deploy.configs import load_config
from deploy.errors import plain_errors
from rc_grpo.config import EditScoreConfig, PairwiseConfig, SamplingConfig
from rc_grpo.images import decode_rgb, encode_png
from rc_grpo.pocket.world import PocketWorld
from reward_service import pocket_judge
from reward_service.asking.client import ChatClient, RequestRefusedError
from reward_service.contract import ANSWER_SCHEMA
from reward_service.editscore import EditScoreJudge
from reward_service.factory import digit_questions, family, make_judge, prompts
from reward_service.judge import JudgeSetupError
from reward_service.logits.judge import LogitsJudge
from reward_service.pairwise.judge import PairwiseJudge
from reward_service.pool import RewardPool
from reward_service.prompts import Prompt, chat
from reward_service.serving import guardian
from reward_service.serving.server_metrics import read
from reward_service.serving.shown import in_requests
from reward_service.vllm_server import ServerStartError, VllmServer
from tests.integration.conftest import train_short
from tests.integration.judged import JUDGED, check
from tests.integration.malformed import corrupting

pytestmark = pytest.mark.timeout(400)
TASKS = list(PocketWorld("heldout", 25, seed=5))


def judge_config(**changes: Any) -> EditScoreConfig:
    config = load_config("pocket_vllm").reward.judges["editscore"]
    assert isinstance(config, EditScoreConfig)
    return config.model_copy(update=changes)


def data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def url_of(image: np.ndarray) -> str:
    return data_url(encode_png(image))


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def server(loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    config = judge_config()
    logs = tmp_path_factory.mktemp("logs")
    # Threads that spin while they wait would take the cores that the other suites compute on.
    quick = config.server.model_copy(update={"probe_every_s": 1.0, "environment": {"OMP_NUM_THREADS": "1"}})
    server = VllmServer("tested", str(pocket_judge.MODEL_PATH), config.model, quick, logs, on_gpu=False)
    loop.run_until_complete(server.open())
    processes = guardian.descendants(os.getpid())
    assert server.pid in processes
    yield server
    loop.run_until_complete(server.close())
    left = [process for process in processes if Path(f"/proc/{process}/cmdline").exists()]
    assert not [process for process in left if b"vllm" in Path(f"/proc/{process}/cmdline").read_bytes()]


def judge_on(server: VllmServer, **sampling: Any) -> EditScoreJudge:
    config = judge_config()
    config = config.model_copy(update={"sampling": SamplingConfig(max_tokens=64, **sampling)})
    return EditScoreJudge(config, server, prompts(config), family(config))


def edits(index: int) -> np.ndarray:
    """The true target, half of it, the untouched source and noise: best to worst."""
    task = TASKS[index]
    assert task.target is not None
    source, target = (decode_rgb(data).astype(np.float32) for data in (task.source, task.target))
    noise = np.random.default_rng(index).uniform(0, 255, target.shape)
    return np.stack([target, (source + target) / 2, source, noise]).round().astype(np.uint8)


@pytest.mark.slow
def test_200_concurrent_scorings_of_real_images_give_parsed_scores(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    judge = judge_on(server)

    async def everything() -> list[Any]:
        groups = [np.concatenate([edits(index), edits(index)[::-1]]) for index in range(25)]
        return await asyncio.gather(*(judge.score(TASKS[index], images) for index, images in enumerate(groups)))

    verdicts = [verdict for group in loop.run_until_complete(everything()) for verdict in group]
    assert len(verdicts) == 200
    assert all(0.0 <= verdict.reward <= 1.0 for verdict in verdicts)
    assert all(len(verdict.subscores) == 4 and verdict.reason for verdict in verdicts)


def test_the_judge_knows_a_good_edit_from_none_and_from_a_broken_one(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    judge = judge_on(server, temperature=0.0)

    async def everything() -> list[Any]:
        return await asyncio.gather(*(judge.score(TASKS[index], edits(index)) for index in range(8)))

    groups = loop.run_until_complete(everything())
    assert all(verdict.reason and len(verdict.subscores) == 4 for group in groups for verdict in group)
    rewards = np.array([[verdict.reward for verdict in group] for group in groups])
    target, half, untouched, noise = rewards.mean(axis=0)
    assert target > half > untouched
    assert target - untouched > 0.4
    assert noise < 0.2


def test_the_same_request_at_temperature_0_gives_the_same_scores(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    judge = judge_on(server, temperature=0.0)
    first, second = (loop.run_until_complete(judge.score(TASKS[0], edits(0))) for _ in range(2))
    assert first == second


def test_an_image_in_a_file_is_scored_as_one_inside_the_request_and_the_file_is_gone_then(
    loop: asyncio.AbstractEventLoop, server: VllmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = judge_on(server, temperature=0.0)
    command = server.command(1)
    folder = Path(command[command.index("--allowed-local-media-path") + 1])
    by_file = loop.run_until_complete(judge.score(TASKS[0], edits(0)))
    assert folder.is_dir()
    assert not any(folder.iterdir())
    monkeypatch.setattr(server, "shown", in_requests)
    assert loop.run_until_complete(judge.score(TASKS[0], edits(0))) == by_file


def test_the_same_seed_gives_the_same_samples_and_passes_differ(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    client = ChatClient(server.url, server.api_key, "pocket", judge_config().client)
    messages = chat(prompts(judge_config()).pq, [url_of(edits(1)[1])], "", "qwen2_5_vl")
    sampling = SamplingConfig(max_tokens=64, temperature=1.5, top_p=1.0)

    def texts(seed: int) -> list[str]:
        request = client.complete(messages, sampling, ANSWER_SCHEMA, count=4, seed=seed)
        return [completion.text for completion in loop.run_until_complete(request)]

    assert texts(7) == texts(7)
    assert texts(7) != texts(70)
    assert len(set(texts(7))) > 1


def test_a_bad_image_and_a_prompt_that_is_too_long_are_refused_in_words(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    client = ChatClient(server.url, server.api_key, "pocket", judge_config().client)

    def ask(image: str, words: str = "") -> None:
        messages = chat(Prompt(text=words), [image], "", "qwen2_5_vl")
        loop.run_until_complete(client.complete(messages, SamplingConfig(max_tokens=8), ANSWER_SCHEMA, count=1, seed=1))

    with pytest.raises(RequestRefusedError, match="image"):
        ask(data_url(b"no image at all"))
    with pytest.raises(RequestRefusedError, match="512"):
        ask(url_of(edits(0)[0]), "many words " * 600)


def test_a_wrong_key_and_an_unknown_model_are_said(loop: asyncio.AbstractEventLoop, server: VllmServer) -> None:
    config = judge_config().client
    with pytest.raises(JudgeSetupError, match="401"):
        loop.run_until_complete(ChatClient(server.url, "guessed", "pocket", config).models())
    unknown = ChatClient(server.url, server.api_key, "nobody", config)
    with pytest.raises(JudgeSetupError, match="nobody"):
        loop.run_until_complete(
            unknown.complete([{"role": "user", "content": "x"}], SamplingConfig(), ANSWER_SCHEMA, count=1, seed=1)
        )
    headers = {"Authorization": "Bearer none"}
    assert httpx.get(f"{server.url}/models", headers=headers, trust_env=False).status_code == 401


def test_the_key_is_not_on_the_command_line_and_the_server_listens_on_loopback(server: VllmServer) -> None:
    command = server.command(1)
    assert server.api_key not in " ".join(command)
    assert command[command.index("--host") + 1] == "127.0.0.1"


def test_the_server_s_metrics_are_passed_on(loop: asyncio.AbstractEventLoop, server: VllmServer) -> None:
    values = read(loop.run_until_complete(server.metrics()))
    assert values["vllm:prompt_tokens_total"] > 0
    # A group's source is decoded once.
    assert values["vllm:mm_cache_hits_total"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_malformed_answers_are_asked_again_and_what_stays_malformed_is_no_reward(
    server: VllmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with corrupting(server, share=0.25, seed=1) as proxy:
        monkeypatch.setenv("RC_GRPO_JUDGE_KEY", proxy.key)
        attached = (f"reward.judges.editscore.urls=['{proxy.url}']", "reward.judges.editscore.sampling.attempts=2")
        run = train_short(tmp_path, "malformed", *JUDGED, *attached, config="pocket_vllm", seconds=240)
    counts = check(run, some_fail=True)
    assert proxy.corrupted > 0.1 * proxy.answers
    # A candidate needs two answers, each of which fails twice in a row with a chance of 0.06.
    assert counts["failed"] < 0.35 * counts["candidates"]
    assert max(update["reward/judge_attempts_max"] for update in run.updates) == 2


@pytest.mark.slow
def test_marks_are_read_from_the_chances_that_a_real_server_tells_and_a_word_is_none(
    loop: asyncio.AbstractEventLoop, server: VllmServer, tmp_path: Path
) -> None:
    """By a model that never learned the questions: it begins each answer with a brace, unless it is held to a digit."""
    asked = tmp_path / "questions.yaml"  # short, as above
    asked.write_text(
        'sc: {text: "Instruction: {instruction}", marks: {success: "Score the success.", over_editing: "Score."}}\n'
        'pq: {text: "Score the image.", marks: {naturalness: "Score.", artifacts: "Score the artifacts."}}\n'
    )

    def scored(images: np.ndarray, **logits: Any) -> list[Any]:
        changes = {"scoring": "logits", "logits": {"prompts": asked, **logits}}
        config = EditScoreConfig.model_validate(judge_config().model_dump() | changes)
        judge = LogitsJudge(config, server, digit_questions(config), family(config))
        return list(loop.run_until_complete(judge.score(TASKS[0], images)))

    free = scored(edits(0))
    assert np.isnan([verdict.reward for verdict in free]).all()
    assert all("a first token that is a digit with probability" in verdict.reason for verdict in free)
    together = scored(edits(0), held=True)
    rewards = np.array([verdict.reward for verdict in together])
    assert ((rewards >= 0) & (rewards <= 1)).all()
    assert len({verdict.subscores["success"] for verdict in together}) == 4  # a mean of ten levels, no level itself
    alone = [scored(edit[None], held=True)[0].reward for edit in edits(0)]
    np.testing.assert_allclose(alone, rewards, atol=1e-3)  # float32: neighbours change the last digits, no more


@pytest.mark.slow
def test_a_reasoning_is_bounded_by_the_schema_and_still_an_answer(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    config = judge_config(reasoning_characters=4)
    judge = EditScoreJudge(config, server, prompts(config), family(config))
    said = loop.run_until_complete(judge.sample(TASKS[0].instruction, edits(0)[2], edits(0)[0]))
    assert said.answer is not None, said.fault
    assert len(said.answer.reasoning) <= 4


@pytest.mark.slow
def test_three_images_go_through_a_real_server_and_pairs_get_answers_of_the_schema(
    loop: asyncio.AbstractEventLoop, tmp_path: Path
) -> None:
    """By a model that never learned the question: what it prefers is nothing, that it chooses is all."""
    asked = tmp_path / "question.yaml"  # short: the pocket judge reads 512 tokens, images included
    images = [{"image": {"source": "edited_images", "index": index}} for index in (0, 1)]
    parts = [{"text": "{{ instruction }}"}, {"image": {"source": "input_image"}}, *images]
    asked.write_text(json.dumps({"user_prompt": parts}))
    config = PairwiseConfig(
        kind="pairwise",
        model="pocket",
        prompts=asked,
        server=judge_config().server,
        sampling=SamplingConfig(max_tokens=64),
    )
    judge = make_judge("pairwise", config, tmp_path)
    assert isinstance(judge, PairwiseJudge)

    async def scored() -> Any:
        try:
            await judge.open()
            return await judge.score(TASKS[0], edits(0))
        finally:
            await judge.close()

    rewards = [verdict.reward for verdict in loop.run_until_complete(scored())]
    assert np.mean(rewards) == pytest.approx(0.5)


@pytest.mark.slow
def test_a_killed_engine_is_noticed_and_the_server_restarted_under_a_new_address(
    loop: asyncio.AbstractEventLoop, server: VllmServer
) -> None:
    before, process = server.url, server.pid
    assert process is not None
    for child in guardian.descendants(process):
        os.kill(child, signal.SIGKILL)

    async def again() -> None:
        while server.restarts == 0:
            await asyncio.sleep(0.2)
        await server.ready()

    loop.run_until_complete(asyncio.wait_for(again(), 180))
    assert server.url != before
    verdicts = loop.run_until_complete(judge_on(server).score(TASKS[0], edits(0)))
    assert all(np.isfinite(verdict.reward) for verdict in verdicts)


@pytest.mark.slow
def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path, loop: asyncio.AbstractEventLoop) -> None:
    config = judge_config().server.model_copy(update={"arguments": ("--no-such-option",)})
    server = VllmServer("broken", str(pocket_judge.MODEL_PATH), "pocket", config, tmp_path, on_gpu=False)
    with pytest.raises(ServerStartError, match="no-such-option") as error:
        loop.run_until_complete(server.open())
    assert "vllm-broken.log" in str(error.value)
    loop.run_until_complete(server.close())


@pytest.mark.slow
def test_check_starts_a_judge_s_own_server_and_shows_its_answer() -> None:
    shown = CliRunner().invoke(app, ["check", "pocket_vllm", "--start-servers", "--json"])
    findings = {found["subject"]: found for found in json.loads(shown.stdout)["findings"]}
    answer = findings["reward.judges.editscore"]
    assert answer["state"] == "fine"
    assert '"score"' in answer["said"]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_run_whose_server_cannot_start_ends_with_the_end_of_its_log(
    loop: asyncio.AbstractEventLoop, capsys: pytest.CaptureFixture[str]
) -> None:
    config = judge_config()
    broken = config.server.model_copy(update={"arguments": ("--no-such-option",)})
    pool = RewardPool("editscore", config.model_copy(update={"server": broken}), "broken-judge")
    with pytest.raises(SystemExit), plain_errors():
        loop.run_until_complete(pool.open())
    said = capsys.readouterr().err
    assert said.startswith("error: reward-editscore-0's vLLM server ended with status 2 before it served")
    assert "--no-such-option" in said
