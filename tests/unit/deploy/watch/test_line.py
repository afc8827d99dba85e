"""A driver that answers is heard; one that does not is said to be silent, in time, and leaves no process behind."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.records.folder import RunFolder
from deploy.watch import line
from deploy.watch.line import Line, NotReachableError

WHERE = {"address": "10.0.0.7:6379", "namespace": "rc-grpo-run", "auth": "disabled"}


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "CALLER", "tests.unit.deploy.watch.silent_callers")


def talk(folder: Path, say: Callable[[Line], Awaitable[None]]) -> None:
    """Talk with the driver of a run; nothing that was started for it is left then."""

    async def talking() -> None:
        driver = Line(folder, None)
        try:
            await say(driver)
        finally:
            await driver.close()

    before = {child.pid for child in psutil.Process().children()}
    asyncio.run(talking())
    assert {child.pid for child in psutil.Process().children()} <= before


def driven(root: Path, name: str) -> Path:
    (root / name).mkdir()
    RunFolder(root / name).announce(WHERE)
    return root / name


def test_questions_are_answered_in_turn_by_one_process(tmp_path: Path) -> None:
    async def say(driver: Line) -> None:
        many = await asyncio.gather(driver.ask("status"), driver.ask("scale", "rollout", 3), driver.ask("stop"))
        assert many == [["answers", "status"], ["answers", "scale", "rollout", 3], ["answers", "stop"]]

    talk(driven(tmp_path, "answers"), say)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refused", "no Ray cluster answers at 10.0.0.7:6379"),
        ("dies", "the connection to the run's cluster ended"),
        ("babbles", "Expecting value"),
        ("hangs", "no answer within"),
    ],
)
def test_a_driver_that_does_not_answer_is_said_to_be_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setattr(line, "CONNECT_DEADLINE_S", 1.0)
    monkeypatch.setattr(line, "ANSWER_DEADLINE_S", 0.5)

    async def say(driver: Line) -> None:
        began = time.monotonic()
        with pytest.raises(NotReachableError, match=said):
            await driver.ask("stop")
        assert time.monotonic() - began < 5
        # Not asked again at once: the reason stands.
        began = time.monotonic()
        with pytest.raises(NotReachableError, match=said):
            await driver.ask("status")
        assert time.monotonic() - began < 0.2

    talk(driven(tmp_path, name), say)


def test_nobody_is_called_about_a_run_that_nobody_drives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", never)

    async def say(driver: Line) -> None:
        for verb in ("status", "stop"):
            with pytest.raises(NotReachableError, match="nobody drives it now"):
                await driver.ask(verb)

    talk(tmp_path, say)


def test_a_run_that_goes_on_elsewhere_is_called_there_at_once(tmp_path: Path) -> None:
    folder = driven(tmp_path, "refused")

    async def say(driver: Line) -> None:
        with pytest.raises(NotReachableError, match="no Ray cluster"):
            await driver.ask("status")
        RunFolder(folder).announce(WHERE | {"address": "10.0.0.8:6379"})
        driver._command[-2] = str(tmp_path / "answers")
        assert await driver.ask("status") == ["answers", "status"]

    talk(folder, say)


def test_why_a_run_is_not_reached_is_said_by_who_ended_before_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def ended(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        await process.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", ended)

    async def say(driver: Line) -> None:
        with pytest.raises(NotReachableError, match="no Ray cluster"):
            await driver.ask("status")

    talk(driven(tmp_path, "refused"), say)


def test_a_damaged_word_of_the_cluster_is_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("[]")

    async def say(driver: Line) -> None:
        with pytest.raises(NotReachableError, match=r"cluster\.json"):
            await driver.ask("status")

    talk(tmp_path, say)


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_ones(tmp_path: Path) -> None:
    async def say(driver: Line) -> None:
        asking = asyncio.create_task(driver.ask("scale", "rollout", 3))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert await driver.ask("status") == ["answers", "status"]

    talk(driven(tmp_path, "answers"), say)
