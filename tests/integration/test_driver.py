"""A run from outside: its driver is asked, told, stopped and killed, and goes on."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.runs import records_of
from tests.integration.conftest import SHORT, read_run, train_short

pytestmark = pytest.mark.timeout(400)
ENDLESS = (
    "loop.updates=1000",
    "learner.schedule=constant",
    "output.checkpoint_every=3",
    "cluster.cpus=8",
    "cluster.dashboard=false",
)


@pytest.fixture(autouse=True)
def no_word_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's shell knows nothing of what Ray has set in this process."""
    for variable in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(variable)


def cli(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "deploy.cli", *arguments]


def settings(root: Path, name: str, *more: str) -> list[str]:
    options = (*SHORT, f"name={name}", f"output.root={root}", *more)
    return [part for option in options for part in ("--set", option)]


def wait_for_updates(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or len(records_of(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no update {count} in time"
        time.sleep(0.05)


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(cli(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(*arguments: str) -> str:
    return subprocess.run(cli(*arguments), capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.chaos
@pytest.mark.usefixtures("cluster")
def test_a_driver_that_is_asked_scaled_stopped_and_killed_makes_the_same_weights(tmp_path: Path) -> None:
    folder, root = tmp_path / "hard-life", ("--root", str(tmp_path))
    first = started("train", "pocket", *settings(tmp_path, "hard-life", *ENDLESS))
    wait_for_updates(folder, 1, first)
    status = said("status", *root)
    assert re.search(r"hard-life: update \d+ of 1000, v\d+:[0-9a-f]{8}", status)
    assert "waits for" in status
    assert said("scale", "rollout", "2", *root).strip() == "rollout: 1 -> 2 workers"
    busy = subprocess.run(
        cli("train", "--resume", str(folder)), capture_output=True, text=True, timeout=120, check=False
    )
    assert busy.returncode == 2
    assert "another process drives" in busy.stderr
    stop(first)
    assert "is not running; its last checkpoint is update-0" in said("status", "--run", str(folder))

    done = len(records_of(folder))
    second = started("train", "--resume", str(folder))
    wait_for_updates(folder, done + 1, second)
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    third = started("train", "--resume", str(folder))
    wait_for_updates(folder, done + 3, third)
    stop(third)

    records = records_of(folder)
    assert [record["update"] for record in records] == list(range(1, len(records) + 1))
    whole = train_short(tmp_path, "whole", "learner.schedule=constant", f"loop.updates={len(records)}")
    assert [record["version"] for record in records] == [update["version"] for update in whole.updates]


def stop(process: "subprocess.Popen[str]") -> None:
    """Ask a run to stop, and see that it does so in good order and in time."""
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - asked < 30
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "as asked; go on with: rc-grpo train --resume" in output


@pytest.mark.chaos
def test_a_node_that_is_stopped_costs_time_and_nothing_else(tmp_path: Path) -> None:
    """In a process of its own: it needs several Ray nodes."""
    command = [sys.executable, "-m", "tests.integration.lost_node", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    digests = json.loads(ended.stdout.splitlines()[-1])
    assert digests["lost"] == digests["kept"]
    assert read_run(tmp_path / "lost").updates[-1]["pool/rollout_lost"] >= 1


def test_a_resumed_run_cannot_become_another_run(tmp_path: Path) -> None:
    from deploy.configs import load_config
    from deploy.records.resuming import is_the_same_run, resumed_config
    from rc_grpo.config import ConfigError, dump

    folder = tmp_path / "moved"
    folder.mkdir()
    (folder / "config.yaml").write_text(dump(load_config("pocket", ["name=before"])))
    config = resumed_config(folder, ("rollout.workers=3", "learner.call_deadline_s=7"))
    assert (config.name, config.rollout.workers, config.output.root) == ("moved", 3, tmp_path)
    assert is_the_same_run(config)
    assert not is_the_same_run(load_config("pocket", ["name=moved", f"output.root={tmp_path}", "seed=5"]))
    with pytest.raises(
        ConfigError, match=r"with another objective\.clip, rollout\.steps: it would not be the same run"
    ):
        resumed_config(folder, ("rollout.steps=3", "objective.clip=0.1"))
