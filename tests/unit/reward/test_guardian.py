"""Nothing that a guardian started outlives whoever asked for it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reward_service.serving import guardian

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are adopted with Linux' subreaper")

# A server with a worker in the same group, and one that has left group and session as a daemon would.
SERVER = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
workers = [subprocess.Popen(sleeper), subprocess.Popen(sleeper, start_new_session=True)]
with open(sys.argv[1] + ".new", "w") as note:
    note.write(" ".join(str(process) for process in [os.getpid(), *(worker.pid for worker in workers)]))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(600)
"""
ASKER = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE); time.sleep(600)"


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def note(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "processes"
    yield path
    for process in processes(path):
        if alive(process):
            os.kill(process, signal.SIGKILL)


def processes(note: Path) -> list[int]:
    return [int(number) for number in note.read_text().split()] if note.exists() else []


def guarded(note: Path, grace: float = 5.0, folder: Path | None = None) -> list[str]:
    beside = [] if folder is None else ["--with", str(folder)]
    return [sys.executable, guardian.__file__, str(grace), *beside, sys.executable, "-c", SERVER, str(note)]


def start(note: Path, grace: float = 5.0) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(guarded(note, grace), stdin=subprocess.PIPE, start_new_session=True)
    assert eventually(note.exists)
    assert all(alive(number) for number in processes(note))
    return process


def test_the_asking_process_is_killed_and_everything_goes(note: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "image").write_text("seen by the server")
    asker = subprocess.Popen([sys.executable, "-c", ASKER, *guarded(note, folder=folder)])
    assert eventually(note.exists)
    asker.kill()
    asker.wait()
    assert eventually(lambda: not any(map(alive, processes(note))))
    assert eventually(lambda: not folder.exists())


def test_a_folder_stays_with_an_asking_process_that_lives(note: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    process = subprocess.Popen(guarded(note, folder=folder), stdin=subprocess.PIPE, start_new_session=True)
    assert eventually(note.exists)
    process.terminate()
    process.wait(20)
    assert folder.exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGUSR1])
def test_a_guardian_that_is_told_to_end_takes_everything_along(note: Path, how: signal.Signals) -> None:
    process = start(note)
    process.send_signal(how)
    process.wait(10)
    assert not any(map(alive, processes(note)))


def test_a_server_that_is_killed_leaves_no_workers_and_its_status_is_told(note: Path) -> None:
    process = start(note)
    os.kill(processes(note)[0], signal.SIGKILL)
    assert process.wait(10) == 128 + signal.SIGKILL
    assert not any(map(alive, processes(note)))


def test_a_frozen_server_is_killed_after_its_grace(note: Path) -> None:
    process = start(note, grace=0.5)
    os.kill(processes(note)[0], signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert not any(map(alive, processes(note)))


def test_a_killed_guardian_takes_the_server_along(note: Path) -> None:
    process = start(note)
    process.kill()
    process.wait()
    assert eventually(lambda: not alive(processes(note)[0]))


def test_the_status_of_a_command_is_its_own() -> None:
    command = [sys.executable, guardian.__file__, "1", sys.executable, "-c", "raise SystemExit(7)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(10) == 7
