"""A judge fails in the middle of a run: the run finishes, no failed score becomes a reward, no process is left.

Each takes minutes on two cores; a killed engine and a failed score are tests in `test_judge_server` too, for CI.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayActorError

from benchmarks.runs import records_of
from deploy.cluster import namespace
from reward_service.serving import guardian
from tests.integration.conftest import Finished, train_short
from tests.integration.judged import JUDGED, check

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(420), pytest.mark.chaos]
ACTOR = "reward-editscore-"


class Saboteur:
    """Does something to a run's judge after some of its updates.

    Args:
        folder: of the run.
        deeds: what is done, by the number of updates after which it is.
    """

    def __init__(self, folder: Path, deeds: dict[int, Callable[[int], None]]) -> None:
        self.seen: set[int] = set()
        self._folder = folder
        self._deeds = dict(deeds)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Saboteur":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self._deeds, f"the run ended before {sorted(self._deeds)}"

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            log = self._folder / "metrics.jsonl"
            done = len(records_of(self._folder)) if log.exists() else 0
            actor = self._actor()
            if actor is not None:
                self.seen.update(guardian.descendants(actor))
            for update in [update for update in self._deeds if update <= done and actor is not None]:
                self._deeds.pop(update)(actor or 0)

    def _actor(self) -> int | None:
        for number in range(4):
            try:
                actor = ray.get_actor(f"{ACTOR}{number}", namespace(self._folder.name))
                return int(ray.get(actor.describe.remote(), timeout=5)["pid"])
            except (ValueError, RayActorError, GetTimeoutError):
                continue
        return None


def kill_server(actor: int) -> None:
    for process in guardian.descendants(actor):
        if b"vllm" in command_of(process):
            os.kill(process, signal.SIGKILL)


def kill_actor(actor: int) -> None:
    os.kill(actor, signal.SIGKILL)


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def freeze_for_a_minute(actor: int) -> None:
    processes = [process for process in guardian.descendants(actor) if b"vllm" in command_of(process)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    threading.Timer(60, thaw, [processes]).start()


def thaw(processes: list[int]) -> None:
    for process in processes:
        if b"vllm" in command_of(process):
            os.kill(process, signal.SIGCONT)


def no_process_is_left(seen: set[int]) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not [process for process in seen if b"vllm" in command_of(process) or b"guardian" in command_of(process)]:
            return True
        time.sleep(0.2)
    return False


def sabotaged(root: Path, name: str, deeds: dict[int, Callable[[int], None]], *overrides: str) -> Finished:
    with Saboteur(root / name, deeds) as saboteur:
        run = train_short(root, name, *JUDGED, *overrides, config="pocket_vllm", seconds=360)
    assert saboteur.seen
    assert no_process_is_left(saboteur.seen)
    return run


def test_killed_server_and_killed_actor_cost_time_and_nothing_else(tmp_path: Path) -> None:
    run = sabotaged(tmp_path, "killed-judge", {1: kill_server, 2: kill_actor})
    check(run)
    assert run.updates[-1]["pool/reward-editscore_lost"] == 1


def test_a_frozen_server_is_restarted_and_the_run_goes_on(tmp_path: Path) -> None:
    check(sabotaged(tmp_path, "frozen-judge", {2: freeze_for_a_minute}))
