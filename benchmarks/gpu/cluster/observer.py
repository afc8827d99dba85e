"""Looks at a run from outside once a second, kills parts of it, and notes when each is back.

    python -m benchmarks.gpu.cluster.observer FOLDER OUT [--kill UPDATE:WHAT ...]

Writes a JSON object a line. In a process of its own: Ray ends those whose cluster ends.
"""

import argparse
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks.saboteur import Saboteur

EVERY_S, PATIENCE_S = 1.0, 300.0
WHAT = ("rollout", "learner", "judge")
_UPDATE, _GROUPS = "the update from", "the groups of"
"""How the waits begin that a learner is in once it is there."""
Status = Mapping[str, Any]


class Observer:
    """Watches one run.

    Args:
        saboteur: talks to it.
        lines: takes what is seen.
    """

    def __init__(self, saboteur: Saboteur, lines: Callable[[dict[str, Any]], None]) -> None:
        self._saboteur = saboteur
        self._lines = lines

    def until(self, reached: Callable[[Status], bool], seconds: float = float("inf")) -> Status | None:
        """Look until something is true; None where the run ended before, or it took too long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            status = self._saboteur.status()
            if status is None:
                return None
            if status:
                self._lines({"seconds": time.time(), "gpus": list(gpus()), **_seen(status)})
                if reached(status):
                    return status
            time.sleep(EVERY_S)
        return None

    def kill(self, update: int, what: str) -> bool:
        """Kill a part of the run after an update, and wait until it is back; tell whether the run goes on."""
        status = self.until(lambda now: now["update"] >= update and _busy(now, what))
        if status is None:
            return False
        process, back = self._victim(what, status)
        os.kill(process, signal.SIGKILL)
        killed = time.time()
        self._lines({"seconds": killed, "killed": what, "update": status["update"]})
        if self.until(back, PATIENCE_S) is None:
            return False
        self._lines({"seconds": time.time(), "back": what, "after": time.time() - killed})
        return True

    def _victim(self, what: str, status: Status) -> tuple[int, Callable[[Status], bool]]:
        """Return the process to kill, and what is true of a run in which its successor works."""
        if what == "rollout":
            lost, name = status["pools"]["rollout"]["lost"], status["workers"]["rollout"][0]
            return (
                self._saboteur.process_of(name),
                lambda now: (
                    now["pools"]["rollout"]["lost"] > lost
                    and len(now["proven"].get("rollout", ())) == now["pools"]["rollout"]["wanted"]
                ),
            )
        if what == "learner":
            process = self._saboteur.process_of("learner-0")
            losses = status["learner"]["losses"]
            return process, lambda now: now["learner"]["losses"] > losses and _learner_waits_for(now, _UPDATE, _GROUPS)
        role = next(role for role in status["workers"] if role != "rollout")
        engine = _engine(self._saboteur.process_of(status["workers"][role][0]))
        return engine, judges_are_back(role, status, self._lines)


def judges_are_back(role: str, before: Status, note: Callable[[dict[str, Any]], None]) -> Callable[[Status], bool]:
    """Return what is true of a run in which all judges work again after one of them was killed.

    Args:
        role: their pool's.
        before: how it was when that one was killed.
        note: takes that another one has gone on meanwhile, and when.
    """
    killed, gone, noted = time.time(), False, False

    def back(now: Status) -> bool:
        nonlocal gone, noted
        pool, went_on = now["pools"][role], _judged(now) > _judged(before)
        missing = pool["resting"] > 0 or pool["workers"] < pool["wanted"]
        gone = gone or missing or pool["lost"] > before["pools"][role]["lost"]
        if missing and went_on and not noted:
            noted = True
            note({"seconds": time.time(), "taken_over": "judge", "after": time.time() - killed})
        return gone and not missing and went_on

    return back


def gpus() -> Iterator[tuple[int, int]]:
    """Yield the utilisation in per cent and the memory in use in MiB of each GPU that this process may use."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    if visible := os.environ.get("CUDA_VISIBLE_DEVICES"):
        command += ["-i", visible]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return
    for line in said.splitlines():
        busy, memory = line.split(",")
        yield int(busy), int(memory)


def _seen(status: Status) -> dict[str, Any]:
    return {
        "update": status["update"],
        "groups": status["groups"],
        "pools": status["pools"],
        "updating": _learner_waits_for(status, _UPDATE),
        "waits": [f"{wait['who']}: {wait['what']}" for wait in status["waits"]],
    }


def _busy(status: Status, what: str) -> bool:
    """A learner is killed in the middle of an update, the others at any time."""
    return what != "learner" or _learner_waits_for(status, _UPDATE)


def _learner_waits_for(status: Status, *begins: str) -> bool:
    return any(wait["who"] == "the learner" and wait["what"].startswith(begins) for wait in status["waits"])


def _judged(status: Status) -> int:
    return int(status["groups"]["ready"] + status["groups"]["learned"])


def _engine(actor: int) -> int:
    """Return the process of vLLM's engine under a reward actor; the actor's own where it serves nothing."""
    below = psutil.Process(actor).children(recursive=True)
    return next((one.pid for one in below if "EngineCore" in " ".join([one.name(), *one.cmdline()])), actor)


def main() -> None:
    """Watch a run to its end."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kill", nargs="*", default=[], metavar="UPDATE:WHAT", help=f"of {', '.join(WHAT)}")
    chosen = parser.parse_args()
    with chosen.out.open("w", buffering=1) as file, Saboteur(chosen.folder, seed=0) as saboteur:
        observer = Observer(saboteur, lambda line: print(json.dumps(line), file=file))
        for order in chosen.kill:
            update, what = order.split(":")
            if not observer.kill(int(update), what):
                return
        observer.until(lambda _: False)


if __name__ == "__main__":
    main()
