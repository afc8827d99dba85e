"""Whatever a judge does, a run ends with the cause or goes on as documented; and a batch of ties is filled."""

import hashlib
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from safetensors.numpy import load_file

from deploy.records.resuming import resumed_config
from deploy.stopping import GuardError, RunStoppedError
from learner.errors import NonFiniteError
from rc_grpo.data.log.experience import read_experience
from rc_grpo.data.log.policies import PolicyStore
from rc_grpo.pool import PoolError
from reward_service.judge import JudgeSetupError
from tests.integration.conftest import read_run, train_short
from tests.integration.disturbed import Disturbed, disturbed, drive, go_on, quiet, same_run, stop
from tests.integration.test_driver import settings, started, wait_for_updates
from tests.unit.reward.beside import served_beside
from tests.unit.reward.chat_server import ChatServer, marks, refusal, texts

pytestmark = pytest.mark.usefixtures("cluster")
Answer = Callable[[dict[str, Any]], Awaitable[web.Response]]
IMPATIENT = "reach_deadline_s: 1, start_deadline_s: 3, probe_deadline_s: 1"


@contextmanager
def judged(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ChatServer, tuple[str, ...]]]:
    """Serve a judge that answers so; yield it, and the settings of a run that asks it."""
    monkeypatch.setenv("RC_GRPO_JUDGE_KEY", "key")
    with served_beside(answer) as server:
        judge = (
            f"reward.judges={{mine: {{kind: editscore, model: judge, family: qwen2_5_vl, urls: ['{server.url}'], "
            f"server: {{{IMPATIENT}}}, sampling: {{passes: 1}}, client: {{tries: 2, backoff_s: 0.01}}, "
            "attempts: 2, start_retry_s: 0.2, resources: {num_cpus: 0.25}}}"
        )
        yield server, (judge, "objective.acd_weight=0", "rollout.acd.enabled=false")


def content_of(body: dict[str, Any]) -> tuple[str, list[str]]:
    """The words of a request, and its images."""
    parts = [part for message in body["messages"] for part in message["content"] if isinstance(part, dict)]
    words = " ".join(part["text"] for part in parts if part["type"] == "text")
    return words, [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


def of_bytes(text: str) -> int:
    return hashlib.sha256(text.encode()).digest()[0]


def marks_of(body: dict[str, Any], reasoning: str = "so") -> web.Response:
    """Marks by the edited image's bits, whoever asks and whenever."""
    _, images = content_of(body)
    return texts(*[marks(5 + of_bytes(images[-1]) % 20, 22, reasoning)] * body["n"])


def every_other_task_tied(body: dict[str, Any], otherwise: web.Response) -> web.Response:
    """Give each edit of every other task the same marks, and good ones to every picture by itself."""
    words, images = content_of(body)
    if len(images) == 1:
        return texts(*[marks(20, 20)] * body["n"])
    return texts(*[marks(12, 12)] * body["n"]) if of_bytes(words) % 2 else otherwise


async def refuses(_: dict[str, Any]) -> web.Response:
    return refusal(400, "At most 1 image(s) may be provided in one prompt.")


async def answers_html(_: dict[str, Any]) -> web.Response:
    return web.Response(text="<html><body>502 Bad Gateway</body></html>", content_type="text/html")


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        pytest.param(refuses, "At most 1 image", id="refuses"),
        # How a client takes it is in tests/unit/reward/test_foreign_answers.py.
        pytest.param(answers_html, "502 Bad Gateway", id="html", marks=pytest.mark.slow),
    ],
)
def test_a_judge_that_cannot_be_used_ends_the_run_before_its_first_group(
    answer: Answer, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with judged(answer, monkeypatch) as (_, settings), pytest.raises(Exception, match=cause) as ended:
        train_short(tmp_path, "unusable", *settings)
    assert isinstance(getattr(ended.value, "cause", ended.value), JudgeSetupError)
    assert not (tmp_path / "unusable" / "summary.json").exists()


def test_a_judge_whose_every_answer_is_nonsense_ends_the_run_with_its_last_words_and_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return texts(*["I would rather not say."] * body["n"])

    barren = ("guards.barren_updates=2", "loop.refills=1", "loop.updates=5")
    cause = r"in the 2 updates up to 2: of 8 groups 8 with too few scores"
    with judged(answer, monkeypatch) as (_, settings), pytest.raises(GuardError, match=cause) as ended:
        train_short(tmp_path, "nonsense", *settings, *barren)
    assert "go on with: rc-grpo train --resume" in str(ended.value)
    folder = tmp_path / "nonsense"
    assert (folder / "checkpoints" / "update-00002" / "manifest.json").exists()
    assert not (folder / "summary.json").exists()
    assert not (folder / "lora").exists()


def test_a_judge_that_dies_in_the_middle_ends_the_run_with_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        if len(asked) > 30:
            dead.append(body)
            return web.Response(status=503, text="gone")
        asked.append(body)
        return marks_of(body)

    asked: list[Any] = []
    dead: list[Any] = []
    with judged(answer, monkeypatch) as (server, settings):
        monkeypatch.setattr(server, "health_answer", lambda: web.Response(status=503 if dead else 200))
        with pytest.raises(PoolError, match=r"did not answer its health probe within server\.start_deadline_s"):
            train_short(tmp_path, "died", *settings, "loop.updates=9")
    assert not (tmp_path / "died" / "summary.json").exists()


def test_ties_are_replaced_until_the_batch_is_full_and_half_an_emoji_is_kept_whoever_rolls_out_stopped_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        _, (*_, edited) = content_of(body)
        said = json.dumps({"reasoning": "great X</script>\u0000", "score": [5 + of_bytes(edited) % 20, 22]})
        return every_other_task_tied(body, texts(*[said.replace("X", "\\ud83d")] * body["n"]))

    filling = ("output.experience=scores", "loop.refills=20")
    with judged(answer, monkeypatch) as (_, settings):
        one = train_short(tmp_path, "one-worker", *settings, *filling)
        with pytest.raises(RunStoppedError):
            disturbed(tmp_path, "two-workers", {1: stop}, *settings, *filling, "rollout.workers=2", shape=())
        two = go_on(tmp_path / "two-workers")
    same_run(one, two)
    assert one.summary["ledger"]["replaced_tied_task_rewards"] > 0
    assert one.summary["ledger"] == two.summary["ledger"]
    assert [update["groups_skipped/share"] for update in one.updates] == [0.0, 0.0]
    reasons = read_experience(one.folder / "experience" / "update-00001.parquet").column("reason").to_pylist()
    assert all("great" in reason and "\ud83d" not in reason for reason in reasons)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_filled_run_whose_driver_was_killed_is_the_run_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(body: dict[str, Any]) -> web.Response:
        return every_other_task_tied(body, marks_of(body))

    with judged(answer, monkeypatch) as (_, judge):
        filling = (*judge, "loop.refills=20", "loop.updates=5", "output.checkpoint_every=1")
        whole = train_short(tmp_path, "whole", *filling)
        folder = tmp_path / "killed"
        own_ray = ("cluster.cpus=8", "cluster.dashboard=false")
        driver = started("train", "pocket", *settings(tmp_path, folder.name, *filling, *own_ray))
        for updates in (2, 3):
            wait_for_updates(folder, updates, driver)
            os.kill(driver.pid, signal.SIGKILL)
            driver.wait()
            driver = started("train", "--resume", str(folder))
        assert driver.wait(240) == 0, driver.communicate()
    assert whole.summary["ledger"]["replaced_tied_task_rewards"] > 0
    same_run(whole, read_run(folder))


@pytest.mark.slow
def test_an_update_that_is_not_finite_ends_the_run_and_is_neither_published_nor_kept(tmp_path: Path) -> None:
    overflowing = ("objective.beta=3e38", "learner.steps_per_rollout=2", "output.checkpoint_every=1", "loop.updates=4")
    with pytest.raises(NonFiniteError, match="not finite"):
        train_short(tmp_path, "blown-up", *overflowing)
    folder = tmp_path / "blown-up"
    assert not (folder / "summary.json").exists()
    assert not (folder / "lora").exists()
    for policy in PolicyStore(folder / "policies").kept():
        weights = load_file(policy.path)
        assert all(np.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.slow
def test_a_finished_run_that_is_given_more_updates_is_the_longer_run(tmp_path: Path) -> None:
    constant = ("learner.schedule=constant", "output.experience=scores")
    longer = train_short(tmp_path, "longer", *constant, "loop.updates=4")
    train_short(tmp_path, "given-more", *constant, "loop.updates=2")
    drive(Disturbed(resumed_config(tmp_path / "given-more", ("loop.updates=4",)), quiet(), resume=True))
    same_run(longer, read_run(tmp_path / "given-more"))
