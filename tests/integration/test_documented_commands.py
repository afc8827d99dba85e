"""The commands of README and docs, given as they are printed, in one folder and in an order that a reader could take.

What is added to a command only makes it small, gives it a free port or names what it left open.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from benchmarks.runs import records_of
from tests.documented import EXECUTED, shown, treatments
from tests.integration.conftest import SHORT
from tests.integration.ray_nodes import eventually, free_port

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
# Every update has every task in it, so that the group which the pages replay is there.
EVERY_TASK = ("data.train.limit=4", "loop.groups_per_update=4", "rollout.group_size=3", "output.policies=all")
LOOKED_AT, UPDATES = 41, 90
"""The pages look at update 40."""


def sets(*options: str) -> list[str]:
    return [part for option in options for part in ("--set", option)]


class Reader:
    """Gives the pages' commands, and remembers which."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left = {command.words for command in shown() if treatments(command.text)[0] in EXECUTED}
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }

    def taken(self, beginning: str) -> list[tuple[str, ...]]:
        """Take the commands that begin so off the list."""
        found = sorted(words for words in self.left if " ".join(words).startswith(beginning))
        assert found, f"no page has {beginning}"
        self.left -= set(found)
        return found

    def gives(self, beginning: str, *more: str) -> str:
        """Run them, and return what they said."""
        return "".join(self._run([*words, *more]) for words in self.taken(beginning))

    @contextmanager
    def starts(self, words: tuple[str, ...], *more: str) -> Iterator["subprocess.Popen[str]"]:
        """Run one beside what follows; it is killed with the block, if it has not ended by then."""
        log = (self.folder / f"{'-'.join(words[:2])}.log").open("w+")
        process = subprocess.Popen(
            [*words, *more], cwd=self.folder, env=self._environment, stdout=log, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            log.close()

    def _run(self, words: list[str]) -> str:
        done = subprocess.run(
            words, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def answers(url: str) -> bool:
    try:
        return httpx.get(url, follow_redirects=True).status_code == 200
    except httpx.TransportError:
        return False


def test_every_command_that_the_pages_show_does_what_they_say(tmp_path: Path) -> None:
    reader, run = Reader(tmp_path), tmp_path / "runs" / "my-run"
    assert "exploration: global" in reader.gives("rc-grpo config")
    assert "seconds an update" in reader.gives("rc-grpo plan").replace("\n", " ")

    (training,) = reader.taken("rc-grpo train pocket --set name=my-run")
    small = sets(*SHORT, *EVERY_TASK, f"loop.updates={UPDATES}", "output.experience=images", "cluster.cpus=8")
    with reader.starts(training, *small) as process:
        eventually(lambda: (run / "metrics.jsonl").exists() and len(records_of(run)) >= 2, "update", 200)
        assert "my-run: update" in reader.gives("rc-grpo status")
        assert "1 -> 6 workers" in reader.gives("rc-grpo scale rollout 6")
        eventually(lambda: len(records_of(run)) >= LOOKED_AT, f"update {LOOKED_AT}", 300)
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 128 + signal.SIGTERM
    assert len(records_of(run)) < UPDATES
    reader.gives("rc-grpo train --resume runs/my-run")
    assert (run / "summary.json").exists()
    for copy in ("look", "another"):
        shutil.copytree(run, run.parent / copy)

    reader.gives("rc-grpo inspect")
    assert "identical: every bit" in reader.gives("rc-grpo replay")
    assert (tmp_path / "replay.png").exists()
    reader.gives("rc-grpo report")
    assert (tmp_path / "report.html").stat().st_size > 100_000
    reader.gives("rc-grpo evaluate pocket --lora", *sets("evaluation.tasks=4"))
    assert (tmp_path / "edits.png").exists()
    Image.new("RGB", (160, 120), "grey").save(tmp_path / "photo.png")
    assert ".png" in reader.gives("rc-grpo edit", "--steps", "2")

    reader.gives("rc-grpo evaluate pocket --compbench")
    edits = tmp_path / "bench" / "editing_results"
    shutil.copytree(edits / "pocket" / "pocket_local", edits / "RUN" / "RUN_local")
    for serving in reader.taken("rc-grpo study serve"):
        url = f"http://127.0.0.1:{(port := free_port())}/"
        # The pages call the same edits by two names: two studies.
        shutil.rmtree(tmp_path / "study", ignore_errors=True)
        with reader.starts(serving, "--port", str(port)):
            eventually(lambda url=url: answers(url), "page of the study", 60)
    reader.gives("rc-grpo study results")

    for name in ("filled", "again", "global", "no-acd"):
        experience = "states" if name == "filled" else "none"
        reader.gives(f"rc-grpo train pocket --set name={name}", *sets(*SHORT, f"output.experience={experience}"))
        assert (run.parent / name / "summary.json").exists()
    (board,) = reader.taken("tensorboard")
    with reader.starts(board, "--port", str(port := free_port())):
        eventually(lambda: answers(f"http://localhost:{port}/"), "TensorBoard", 60)
    assert reader.left == set()
