"""Ray workers that need not import torch and diffusers first: each is forked from one process that has.

Ray starts a process for every actor, and most of a short training's work would be the same imports over and over. What
Ray is told as ``py_executable`` hands its command line, environment and files to the process that is ready, which forks
a child for it. The child does what ``python default_worker.py ...`` does, under a process id of its own. Ray and our
modules are not imported before the fork: what they read from the environment is the worker's.
"""

import argparse
import array
import gc
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "aiohttp",
    "deepspeed",
    # DeepSpeed asks for it when an engine is made, and it for the compiler.
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "diffusers.hooks",
    "diffusers.models.transformers.transformer_flux",
    "httpx",
    "matplotlib.figure",
    "peft",
    "prometheus_client",
    "pyarrow.parquet",
    "rich.console",
    "tenacity",
    "torch.utils.tensorboard",
    "transformers",
)
READY = b"ready"
_RAY_S_OWN = Path(sysconfig.get_path("purelib")) / "ray" / "_private" / "workers" / "setup_worker.py"
_PID = struct.Struct("i")


@contextmanager
def warm_workers(folder: Path) -> Iterator[str]:
    """Start the process that workers are forked from; yield what Ray is to run instead of Python.

    Args:
        folder: for a socket; a short path.
    """
    path = folder / "warm"
    ready = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"},
        start_new_session=True,
    )
    try:
        assert ready.stdout is not None
        assert ready.stdout.readline().strip() == READY
        yield f"{_asking(Path(__file__))} {path}"
    finally:
        assert ready.stdin is not None
        ready.stdin.close()
        ready.wait(20)


def _asking(script: Path) -> str:
    return f"{sys.executable} -IS {script}"


def serve(path: str) -> None:
    """Import the libraries, then fork whoever is asked for."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(path)
        listening.listen(64)
        os.write(1, READY + b"\n")
        # Whoever started this holds its standard input open; a killed one cannot leave it behind.
        while listening in select.select([listening, sys.stdin], [], [])[0]:
            asked, _ = listening.accept()
            # The child's child is the worker, so that somebody waits for it.
            if os.fork() == 0:
                listening.close()
                _attend(asked)
            asked.close()
            _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _attend(asked: socket.socket) -> NoReturn:
    told, files, _, _ = socket.recv_fds(asked, 2**20, 3)
    while not told.endswith(b"\0"):
        more = asked.recv(2**20)
        if not more:
            os._exit(1)
        told += more
    worker = os.fork()
    if worker == 0:
        asked.close()
        _become(json.loads(told[:-1]), files)
    for file in files:
        os.close(file)
    asked.sendall(_PID.pack(worker))
    _, status = os.waitpid(worker, 0)
    asked.sendall(_PID.pack(os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(told: dict[str, Any], files: list[int]) -> NoReturn:
    """Be the Python that was asked for, as far as Ray and a run can tell."""
    import numpy as np

    os.setpgid(0, 0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(told["environment"])
    os.chdir(told["folder"])
    random.seed()
    np.random.seed()
    sys.argv = told["words"]
    ours = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part not in sys.path]
    sys.path[:1] = [str(Path(sys.argv[0]).parent), *ours]
    status = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def ask(path: str, words: list[str]) -> int:
    """Have a worker forked, and end as it ends."""
    told = {"words": words, "environment": dict(os.environ), "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.connect(path)
        asked.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        asked.sendall(json.dumps(told).encode()[1:] + b"\0")
        (worker,) = _PID.unpack(asked.recv(_PID.size))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda given, _: os.kill(worker, given))
        ended = asked.recv(_PID.size)
    return abs(_PID.unpack(ended)[0]) if ended else 1


def set_up(given: list[str]) -> int:
    """Do what Ray's setup script does, which imports Ray to read a line of JSON, then ask for the worker.

    A worker that Ray starts before it knows of a job has no environment of its own, and is Ray's affair.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    options, words = parser.parse_known_args(given)
    context = json.loads(options.serialized_runtime_env_context)
    if not (context.get("py_executable") or "").startswith(_asking(Path(__file__))):
        os.execv(sys.executable, [sys.executable, str(_RAY_S_OWN), *given])
    for name, value in context["env_vars"].items():
        os.environ[name] = os.path.expandvars(value)
    return ask(context["py_executable"].split()[-1], words)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    elif Path(sys.argv[1]).is_socket():
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    else:
        sys.exit(set_up(sys.argv[1:]))
