"""The Slurm script: well formed, and right about tokens, stops and starting again, on stand-ins for Slurm and Ray."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from rc_grpo.config import LoopConfig
from tests.unit.manifests.documents import DEPLOY
from tests.unit.manifests.linters import linter

SCRIPT = DEPLOY / "slurm/train.sbatch"
_STAND_INS = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
    "scontrol": '[[ $1 == show ]] && echo node1 || echo "scontrol $*" >> "$LOG"\n',
    "hostname": "echo 10.0.0.1\n",
    "ray": 'echo "ray $*" >> "$LOG"\n[[ $* != *--block* ]] || exec sleep 60\n',
    "python": (
        "[[ $1 == -c ]] && { echo secret; exit; }\n"
        'echo "python $* $(stat -c %a "$RAY_AUTH_TOKEN_PATH") $(cat "$RAY_AUTH_TOKEN_PATH")" >> "$LOG"\n'
        "trap 'sleep 0.2; echo checkpoint >> \"$LOG\"; exit 143' TERM\n"
        'touch "$LOG.running"\n'
        'for _ in $(seq "$TENTHS"); do sleep 0.1; done\nexit "$CODE"\n'
    ),
}


class Job:
    """The script at work in a folder."""

    def __init__(self, folder: Path, code: int = 0, tenths: int = 1) -> None:
        self.log, self.tokens = folder / "log", folder / "tokens"
        commands = folder / "bin"
        commands.mkdir()
        for name, text in _STAND_INS.items():
            (commands / name).write_text(f"#!/usr/bin/env bash\n{text}")
            (commands / name).chmod(0o755)
        environment: Mapping[str, str] = {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "HOME": str(folder),
            "LOG": str(self.log),
            "CODE": str(code),
            "TENTHS": str(tenths),
            "SLURM_JOB_ID": "7",
            "SLURM_NNODES": "1",
            "SLURM_JOB_NODELIST": "node1",
            "RC_GRPO_TOKENS": str(self.tokens),
        }
        arguments = ["bash", str(SCRIPT), "flux_kontext_dev", "--set", "name=mine"]
        self.process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)

    def end(self, asked: signal.Signals | None = None) -> int:
        """Ask for it once the driver runs, if it is to be asked; return the exit status."""
        end = time.monotonic() + 20
        while asked and not Path(f"{self.log}.running").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        if asked:
            self.process.send_signal(asked)
        return self.process.wait(20)


def test_it_is_well_formed() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True, check=False).stderr == ""
    done = subprocess.run([linter("shellcheck"), str(SCRIPT)], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ('"$RAY_AUTH_TOKEN_PATH")', "$RAY_AUTH_TOKEN_PATH)"),
        ("&& heard=yes; }", "&& heard=yes }"),
        ('exit "$code"', 'exit "$codes"'),
        ("done\n", "don\n"),
    ],
)
def test_a_deliberate_error_is_caught(good: str, bad: str, tmp_path: Path) -> None:
    assert good in SCRIPT.read_text()
    (tmp_path / "wrong.sbatch").write_text(SCRIPT.read_text().replace(good, bad))
    done = subprocess.run([linter("shellcheck"), "wrong.sbatch"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1


def test_slurm_gives_notice_in_time_for_the_checkpoint() -> None:
    (notice,) = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH --signal=")]
    assert float(notice.partition("USR1@")[2]) > 2 * LoopConfig().stop_deadline_s


def test_the_driver_gets_its_configuration_and_the_cluster_of_this_job(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert job.end() == 0
    log = job.log.read_text()
    assert "-m deploy.train --config flux_kontext_dev --set cluster.address=10.0.0.1:20007 --set name=mine" in log
    assert "ray start --head --node-ip-address=10.0.0.1 --port=20007" in log


def test_the_token_is_for_this_user_and_this_job_alone(tmp_path: Path) -> None:
    job = Job(tmp_path)
    assert job.end() == 0
    assert "name=mine 600 secret" in job.log.read_text()
    assert list(job.tokens.iterdir()) == []
    assert stat.S_ISDIR(job.tokens.stat().st_mode)


def test_when_the_time_is_up_the_run_stops_in_good_order_and_is_queued_again(tmp_path: Path) -> None:
    job = Job(tmp_path, tenths=300)
    assert job.end(signal.SIGUSR1) == 143
    assert job.log.read_text().splitlines()[-2:] == ["checkpoint", "scontrol requeue 7"]


def test_a_run_that_is_asked_to_stop_stops_in_good_order_and_stays_stopped(tmp_path: Path) -> None:
    job = Job(tmp_path, tenths=300)
    assert job.end(signal.SIGTERM) == 143
    assert job.log.read_text().splitlines()[-1] == "checkpoint"


def test_a_run_that_fails_fails_the_job_and_is_not_queued_again(tmp_path: Path) -> None:
    job = Job(tmp_path, code=3)
    assert job.end() == 3
    assert "requeue" not in job.log.read_text()
    assert list(job.tokens.iterdir()) == []
